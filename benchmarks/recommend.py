"""What a list costs: `Recommend` of 20 items beside a bare gRPC echo of the same messages, and beside bare NumPy.

One caller asks `leeway serve` without pause, in turns with an echo of the same messages in a process of its own: for 20
of 1,000 named candidates that the catalogue knows, for 20 of 1,000 that the request describes, and for 20 of a
catalogue of 100,000 items, exactly searched and by HNSW. The share of the model is the time of its vectors, search and
scores, taken in this process on the same policy and requests, in turns with the server, over the median of the server.
Bare NumPy is one inner product with all 100,000 vectors of 96 numbers and the 1,000 greatest. What is timed in
this process has one thread of BLAS: several wait for each other by spinning, which costs more than the arithmetic
on a busy machine.
"""

from __future__ import annotations

import concurrent.futures
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import yaml
from threadpoolctl import threadpool_limits

from benchmarks._harness import goal, main
from engine.api.leeway.v1.service_pb2 import RecommendRequest, RecommendResponse
from engine.client import Candidate, Plain, recommend_request
from engine.config import Recommender
from engine.recommender.catalogue import Catalogue
from engine.recommender.declared import declared_space
from engine.recommender.fields import Field
from engine.recommender.policy import RecommenderPolicy
from engine.recommender.recommend import read_candidates, recommend, response, score
from engine.recommender.space import FieldSpace
from engine.recommender.store import RecommenderStore
from engine.recommender.two_tower import Lookup, Tower, TwoTower
from streaming.catalogues import catalogue_path, save_catalogue

METHOD = "/leeway.v1.Leeway/Recommend"
NAME, ITEMS, CANDIDATES, K, WIDTH = "shop", 100_000, 1_000, 20, 48  # two tasks: 96 numbers an item
EMBEDDING = 16
SETTINGS: dict[str, Any] = {
    "user": {
        "country": {"type": "category"},
        "age": {"type": "number"},
        "recent": {"type": "history", "of": "item_id", "length": 20},
    },
    "item": {
        "item_id": {"type": "category"},
        "brand": {"type": "category"},
        "price": {"type": "number"},
        "rating": {"type": "number"},
    },
    "tasks": {"click": 1.0, "purchase": 5.0},
    "slots": K,
    "candidates": CANDIDATES,
}
#: Its own bound for an exactly searched catalogue of this size, in the process.
MOST_MS = 20.0


def model_of(space: FieldSpace, tasks: tuple[str, ...]) -> TwoTower:
    """Return towers of the default widths (256 and 128, 64, 2 x 48) with random weights."""
    rng = np.random.default_rng(0)
    start: dict[str, int] = {}
    rows = {"statistical": 0, "coded": 0}
    for field in (*space.user, *space.item):
        key = field.codes if field.coded else field.name
        kind = "coded" if field.coded else "statistical"
        if key not in start:
            start[key] = rows[kind]
            rows[kind] += space.rows_of(field)

    def weights(*shape: int) -> Any:
        return (rng.normal(size=shape) / np.sqrt(shape[0])).astype(np.float32)

    def tower(fields: tuple[Field, ...]) -> Tower:
        def lookup(kind: str) -> Lookup:
            mine = [field for field in fields if field.kind == kind]
            places = [start[field.codes if field.coded else field.name] for field in mine]
            return Lookup(np.array(places, np.int64), np.array([space.rows_of(field) for field in mine], np.int64))

        widths = [EMBEDDING * len(fields), 256, 128, 64, WIDTH * len(tasks)]
        layers = [(weights(before, after), weights(1, after)[0]) for before, after in itertools.pairwise(widths)]
        return Tower(lookup("statistical"), lookup("categorical"), lookup("sequential"), layers[0], tuple(layers[1:]))

    return TwoTower(
        tasks,
        weights(rows["statistical"], EMBEDDING),
        weights(rows["coded"], EMBEDDING),
        tower(space.user),
        tower(space.item),
    )


def policy_of(kind: str, items: int) -> RecommenderPolicy:
    rng = np.random.default_rng(1)
    recommender = Recommender.model_validate({**SETTINGS, "index": {"kind": kind}})
    ids = [f"item-{number:06d}" for number in range(items)]
    brands = [f"brand-{number}" for number in rng.integers(0, 500, items)]
    declared = declared_space(recommender)
    quantiles = np.linspace(0.02, 0.98, 49)
    space = FieldSpace(
        declared.user,
        declared.item,
        {"age": 100 * quantiles, "price": 100 * quantiles, "rating": 5 * quantiles},
        {"country": ["NL", "DE"], "item_id": ids, "brand": sorted(set(brands))},
    )
    columns = {"item_id": ids, "brand": brands, "price": rng.uniform(0, 100, items), "rating": rng.uniform(0, 5, items)}
    catalogue = Catalogue(recommender.item, tuple(ids), columns)
    model = model_of(space, tuple(recommender.tasks))
    return RecommenderPolicy(NAME, recommender, space, model, catalogue, 1, 0, 10_000, 0)


def requests_of(policy: RecommenderPolicy) -> dict[str, RecommendRequest]:
    assert policy.catalogue is not None
    rng = np.random.default_rng(2)
    ids = policy.catalogue.ids
    user: dict[str, Plain] = {
        "country": "NL",
        "age": 40.0,
        "recent": [ids[row] for row in rng.integers(0, len(ids), 20)],
    }
    named = [ids[row] for row in rng.choice(len(ids), CANDIDATES, replace=False)]
    described = [Candidate(i, {"brand": "brand-7", "price": 12.5, "rating": 4.0}) for i in named]
    made = {
        "named": recommend_request(NAME, user, named, K),
        "described": recommend_request(NAME, user, described, K),
        "catalogue": recommend_request(NAME, user, k=K),
    }
    for request in made.values():
        request.decision_id = ""
    return made


def echo(answer: str) -> None:
    """Run an echo server until killed; prints its port."""
    reply = RecommendResponse.FromString(bytes.fromhex(answer))

    def handle(_request: RecommendRequest, _context: grpc.ServicerContext) -> RecommendResponse:
        return reply

    server = grpc.server(concurrent.futures.ThreadPoolExecutor(8))
    handler = grpc.unary_unary_rpc_method_handler(
        handle,
        request_deserializer=RecommendRequest.FromString,
        response_serializer=RecommendResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("leeway.v1.Leeway", {"Recommend": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    server.wait_for_termination()


def serve(directory: Path, kind: str, policy: RecommenderPolicy) -> tuple[subprocess.Popen[bytes], str]:
    """Start ``leeway serve`` with a policy and return it with its address."""
    directory.mkdir()
    config = {
        "version": 1,
        "recommenders": {NAME: {**SETTINGS, "index": {"kind": kind}}},
        "serving": {"port": 0},
        "metrics": {"serving_port": 0, "pipeline_port": 0},
        "log": {"fsync": False},
    }
    path = directory / "leeway.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))  # the order of the fields is part of a model
    data = directory / "leeway-data"
    assert policy.catalogue is not None
    save_catalogue(catalogue_path(data / "catalogues", NAME), policy.catalogue)
    RecommenderStore(data / "policies").publish(policy)
    process = subprocess.Popen(
        [sys.executable, "-m", "streaming.cli", "serve", "--config", str(path)], stderr=subprocess.DEVNULL
    )
    found = data / "run" / "serve.json"
    while not found.exists():
        time.sleep(0.05)
    facts = json.loads(found.read_text())
    return process, f"{facts['host']}:{facts['port']}"


def timed(ask: Callable[[], object], count: int) -> list[float]:
    """Return the milliseconds of so many calls, with one thread of BLAS in this process."""
    with threadpool_limits(1, user_api="blas"):
        return _timed(ask, count)


def _timed(ask: Callable[[], object], count: int) -> list[float]:
    ask()
    found = []
    for _ in range(count):
        started = time.perf_counter()
        ask()
        found.append(1_000 * (time.perf_counter() - started))
    return found


def called(target: str, request: RecommendRequest, count: int) -> list[float]:
    with grpc.insecure_channel(target) as channel:
        call = channel.unary_unary(
            METHOD,
            request_serializer=RecommendRequest.SerializeToString,
            response_deserializer=RecommendResponse.FromString,
        )
        call(request, wait_for_ready=True, timeout=60.0)
        return timed(lambda: call(request, timeout=60.0), count)


def cuts(times: list[float]) -> dict[str, float]:
    found = statistics.quantiles(times, n=100)
    return {"p50_ms": round(found[49], 3), "p99_ms": round(found[98], 3)}


def model_times(policy: RecommenderPolicy, request: RecommendRequest, count: int) -> list[float]:
    """Return the milliseconds that vectors, search and scores take of one answer."""
    user_columns = {
        "country": ["NL"],
        "age": np.array([40.0]),
        "recent": [tuple(request.user.named["recent"].texts.values)],
    }
    candidates = read_candidates(policy, request.candidates) if request.candidates else None

    def ask() -> None:
        user = policy.user_vector(user_columns)
        if candidates is None:
            assert policy.vectors is not None
            policy.expected(user, policy.vectors[policy.retrieve(user, CANDIDATES)])
        else:
            score(policy, user, candidates)

    return timed(ask, count)


def measure(quick: bool) -> dict[str, Any]:
    repeats, count = (3, 60) if quick else (7, 200)
    exact, graph = policy_of("exact", ITEMS), policy_of("hnsw", ITEMS)
    asked = requests_of(exact)
    answer = response(recommend(exact, asked["catalogue"], "0" * 32, 1)).SerializeToString().hex()
    forms = {"named": "exact", "described": "exact", "catalogue": "exact", "catalogue, hnsw": "hnsw"}
    runs: dict[str, list[float]] = {}
    of_model: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        base = subprocess.Popen(
            [sys.executable, "-c", f"from benchmarks.recommend import echo; echo('{answer}')"], stdout=subprocess.PIPE
        )
        assert base.stdout is not None
        bare = f"127.0.0.1:{int(base.stdout.readline())}"
        servers = {kind: serve(Path(folder) / kind, kind, p) for kind, p in (("exact", exact), ("hnsw", graph))}
        try:
            for _ in range(repeats):
                for name, kind in forms.items():
                    request = asked[name.partition(",")[0]]
                    runs.setdefault(name, []).extend(called(servers[kind][1], request, count))
                    # Between the calls, so that a load on the machine is in both alike.
                    policy = exact if kind == "exact" else graph
                    of_model.setdefault(name, []).extend(model_times(policy, request, count))
                    runs.setdefault(f"echo of {name}", []).extend(called(bare, request, count))
        finally:
            for process in (base, *(process for process, _ in servers.values())):
                process.kill()
                process.wait()
    keys = exact.vectors
    assert keys is not None
    flat, query = keys.reshape(len(keys), -1), np.ones(2 * WIDTH, np.float32)

    def numpy_search() -> None:
        products = flat @ query
        np.argpartition(products, ITEMS - CANDIDATES)[ITEMS - CANDIDATES :]

    inside = {
        "exact index": timed(lambda: exact.retrieve(query.reshape(2, WIDTH), CANDIDATES), repeats * count),
        "hnsw index": timed(lambda: graph.retrieve(query.reshape(2, WIDTH), CANDIDATES), repeats * count),
        "numpy inner product and argpartition": timed(numpy_search, repeats * count),
    }
    served = {name: cuts(times) for name, times in runs.items()}
    shares = {name: round(statistics.median(of_model[name]) / served[name]["p50_ms"], 3) for name in forms}
    wanted = set(exact.retrieve(query.reshape(2, WIDTH), CANDIDATES).tolist())
    found = set(graph.retrieve(query.reshape(2, WIDTH), CANDIDATES).tolist())
    index = {name: cuts(times) for name, times in inside.items()}
    goals = [
        goal("p99 of an exact search of 100,000 items of 96 numbers, ms", index["exact index"]["p99_ms"],
             f"< {MOST_MS:g}", index["exact index"]["p99_ms"] < MOST_MS),
    ]  # fmt: skip
    for name in ("named", "catalogue"):
        goals += [goal(f"Recommend, {name}, {cut}", served[name][cut], "stated", True) for cut in ("p50_ms", "p99_ms")]
        goals.append(goal(f"Recommend, {name}, share of the model", shares[name], "stated", True))
    return {
        "items": ITEMS, "candidates": CANDIDATES, "k": K, "repeats": repeats, "served": served, "model_share": shares,
        "index": index, "hnsw_recall": round(len(wanted & found) / len(wanted), 4), "goals": goals,
    }  # fmt: skip


if __name__ == "__main__":
    main(__doc__, measure)
