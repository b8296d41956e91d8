"""Vowpal Wabbit's binding, called bare behind grpcio, on our own messages. Runs in an environment of its own.

It parses the request, writes its numbers as VW's text, asks for the probabilities, draws, and answers; it logs nothing.
``python -m benchmarks.peers.vw_serving WORKERS`` prints a line of JSON with its port, and serves until it is killed.
"""

from __future__ import annotations

import concurrent.futures
import json
import random
import sys
import threading

import grpc
import numpy as np
import vowpalwabbit  # type: ignore[import-not-found, unused-ignore]

from engine.api.leeway.v1.service_pb2 import DecideRequest, DecideResponse


class Bare:
    """One workspace, which one thread at a time may ask."""

    def __init__(self) -> None:
        self._workspace = vowpalwabbit.Workspace("--cb_explore_adf --squarecb --cb_type mtr -b 18 --quiet")
        self._lock = threading.Lock()
        self._learn()

    def _learn(self) -> None:
        rng = np.random.default_rng(1)
        for _ in range(200):
            actions = [f"|a {text(row)}" for row in rng.normal(size=(10, 10))]
            actions[0] = f"0:{rng.normal():.4f}:0.1 {actions[0]}"
            self._workspace.learn([f"shared |s {text(rng.normal(size=20))}", *actions])

    def decide(self, request: DecideRequest, _context: grpc.ServicerContext) -> DecideResponse:
        shared = f"shared |s {text(np.frombuffer(request.context.packed, '<f4'))}"
        count = len(request.actions)
        rows = np.frombuffer(request.packed_actions, "<f4").reshape(count, -1)
        lines = [shared, *(f"|a {text(row)}" for row in rows)]
        with self._lock:
            p = self._workspace.predict(lines)
        chosen = random.choices(range(count), p)[0]
        return DecideResponse(
            decision_id="0" * 32,
            action=request.actions[chosen].id,
            action_index=chosen,
            propensity=p[chosen],
            probabilities=p,
            policy_version="vw",
        )


def text(row: np.ndarray) -> str:
    """Return numbers as VW reads them."""
    return " ".join([f"{column}:{value:.7g}" for column, value in enumerate(row.tolist())])


if __name__ == "__main__":
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(int(sys.argv[1])))
    handler = grpc.unary_unary_rpc_method_handler(
        Bare().decide,
        request_deserializer=DecideRequest.FromString,
        response_serializer=DecideResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("leeway.v1.Leeway", {"Decide": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(json.dumps({"port": port}), flush=True)
    server.wait_for_termination()
