"""Readers of files: what an operator writes or copies, and what ours wrote and a disk has damaged."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np

from engine.config import Challenger
from engine.errors import ConfigError, LeewayError, LogError, SnapshotError
from engine.oracles.forest import Forest
from engine.recommender.store import pack_recommender, read_recommender
from engine.serving.tokens import new_token, read_access
from engine.store import PolicyStore, pack_policy, read_policy
from streaming.block import BlockReader, blocks
from streaming.catalogues import read_catalogue, read_table, save_catalogue
from streaming.config import load_config
from streaming.embedded import EmbeddedLog
from streaming.learner import LearnerRole
from streaming.log import Message, Record
from streaming.spool import Spool
from streaming.topics import DECISIONS, topics
from tests.engine import samples
from tests.engine.recommender import shop
from tests.engine.test_forest import trained
from tests.fuzz.harness import Harness
from tests.streaming.format_one import write_format_one
from tests.streaming.samples import NAME, POINT, append, feedback, opened
from tests.training import feedback as archived
from training.archive import ArchiveReader, ArchiveWriter
from training.formats import READERS, as_yaml, infer

ROOT = Path(__file__).parents[2]


def _written(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def _swapped(packed: bytes, data: bytes) -> bytes:
    """Return an archive of which the input is one member: its first byte says which."""
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members[sorted(members)[(data[0] if data else 0) % len(members)]] = data[1:]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _members(packed: bytes) -> list[bytes]:
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        return [bytes([place]) + archive.read(name) for place, name in enumerate(sorted(archive.namelist()))]


@cache
def _policy() -> bytes:
    return pack_policy(samples.make_policy(update=3))


@cache
def _lists() -> bytes:
    return pack_recommender(shop.make_policy())


def _snapshot(read: Callable[[Path], object], whole: Callable[[], bytes] | None) -> Callable[[bytes, Path], None]:
    def run(data: bytes, folder: Path) -> None:
        read(_written(folder, "policy.npz", data if whole is None else _swapped(whole(), data)))

    return run


def _pointers(data: bytes, folder: Path) -> None:
    """What serves, and what is tried beside it: the first line, and the second."""
    store = PolicyStore(folder)
    store.save(samples.make_policy())
    current, _, challenger = data.partition(b"\n")
    _written(folder, f"{samples.NAME}/CURRENT", current)
    _written(folder, f"{samples.NAME}/CHALLENGER", challenger)
    store.challenger(samples.NAME)
    store.load(samples.NAME, store.current(samples.NAME) or "")


def _pointer_seeds() -> Sequence[bytes]:
    challenger = Challenger.model_validate({"version": samples.make_policy().version, "mode": "shadow"})
    return [f"{samples.make_policy().version}\n{challenger.model_dump_json()}".encode()]


def _catalogue(data: bytes, folder: Path) -> None:
    read_catalogue(_written(folder, "shop.npz", data), shop.shop())


def _catalogue_seeds() -> Sequence[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shop.npz"
        save_catalogue(path, shop.catalogue_of(shop.shop()))
        return [path.read_bytes()]


def _table(suffix: str) -> Callable[[bytes, Path], None]:
    def run(data: bytes, folder: Path) -> None:
        read_table(_written(folder, f"items{suffix}", data), shop.shop())

    return run


def _parquet() -> Sequence[bytes]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    pq.write_table(pa.table({"item_id": ["i1", "i2"], "price": [1.0, None], "look": [[1.0, 2.0], [3.0, 4.0]]}), sink)
    return [sink.getvalue()]


@cache
def _learned() -> Path:
    """Return a directory with a log, a store and a learner's checkpoint."""
    folder = Path(tempfile.mkdtemp(prefix="leeway-fuzz-"))
    with opened(folder) as log:
        append(log, *(feedback(number, float(number % 2)) for number in range(20)))
        role = _learner(log, folder)
        while role.step(timeout_s=0.0):
            pass
        role.close()
    return folder


def _learner(log: EmbeddedLog, folder: Path) -> LearnerRole:
    return LearnerRole(log, {NAME: POINT.engine()}, PolicyStore(folder / "policies"), folder / "learner", lambda: 10**6)


def _checkpoint_path(folder: Path) -> Path:
    return next(path for path in sorted((folder / "learner").rglob("*.npz")))


def _checkpoint(data: bytes, folder: Path) -> None:
    shutil.copytree(_learned(), folder / "all")
    path = _checkpoint_path(folder / "all")
    path.write_bytes(_swapped(path.read_bytes(), data))
    log = EmbeddedLog(folder / "all" / "log")
    try:
        role = _learner(log, folder / "all")
        role.step(timeout_s=0.0)
        role.close()
    finally:
        log.close()


@cache
def _log_file() -> Path:
    """Return a directory with a log of decisions."""
    folder = Path(tempfile.mkdtemp(prefix="leeway-fuzz-"))
    log = EmbeddedLog(folder, fsync=False)
    log.create(topics(1, 10**13))
    log.append([Message(DECISIONS, b"d%d" % n, b"value", 1_000, (("x", b"y"),)) for n in range(20)])
    log.close()
    return folder


def _log_path() -> Path:
    return next(path for path in sorted(_log_file().glob("*.sqlite")) if path.stat().st_size > 4_096)


def _log_seeds() -> Sequence[bytes]:
    """Return a file of today, and one as format 1 had it."""
    today = _log_path()
    records = [Record(DECISIONS, 0, n, 1_000, b"d%d" % n, b"value", (("x", b"y"),)) for n in range(20)]
    with tempfile.TemporaryDirectory() as folder:
        old = Path(folder) / today.name
        own = [topic for topic in topics(1, 10**13) if topic.writer == today.stem]
        write_format_one(old, own, records, {})
        return [today.read_bytes(), old.read_bytes()]


def _block(data: bytes, _folder: Path) -> None:
    """Read a block of as many records as the first four bytes say."""
    size = int.from_bytes(data[:4], "little", signed=True)
    for last in (1, size):
        list(BlockReader().fields(data[4:], size, 0, last))


def _block_seeds() -> Sequence[bytes]:
    plain = [Message("t", b"d%d" % n, b"value", 1_000 + n) for n in range(5)]
    full = [Message("t", None, b"value", n, (("x", b"y"), ("n", b"%d" % n))) for n in range(5)]
    return [block.size.to_bytes(4, "little") + block.data for its in (plain, full) for block in blocks(its)]


def _log(data: bytes, folder: Path) -> None:
    shutil.copytree(_log_file(), folder / "log")
    (folder / "log" / _log_path().name).write_bytes(data)
    log = EmbeddedLog(folder / "log", fsync=False)
    try:
        log.create(topics(1, 10**13))
        log.read(DECISIONS, 0)
        log.append([Message(DECISIONS, b"d", b"v", 1_000)])
        consumer = log.consumer("group", [DECISIONS])
        consumer.poll(100)
        consumer.commit()
    finally:
        log.close()


@cache
def _spooled() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="leeway-fuzz-"))
    spool = Spool(folder, max_bytes=2**24, fsync=False)
    spool.append([Message(DECISIONS, b"d%d" % n, b"value", 1_000, (("x", b"y"),)) for n in range(20)])
    spool.close()
    return folder


def _spool_path() -> Path:
    return next(path for path in sorted(_spooled().glob("*.sqlite")) if path.stat().st_size > 4_096)


def _spool(data: bytes, folder: Path) -> None:
    """A damaged spool is moved aside; a new one takes what comes."""
    shutil.copytree(_spooled(), folder / "spool")
    (folder / "spool" / _spool_path().name).write_bytes(data)
    spool = Spool(folder / "spool", max_bytes=2**24, fsync=False)
    try:
        spool.take(100)
        spool.shipped()
        spool.append([Message(DECISIONS, b"d", b"v", 1_000)])
        spool.take(100)
    finally:
        spool.close()


@cache
def _archive() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="leeway-fuzz-"))
    with ArchiveWriter(folder, {"offers": archived.POINT}) as writer:
        writer.append([archived.feedback(number, archived.NEW_YEAR_MS + number) for number in range(10)], {0: 10})
    return folder


def _part() -> Path:
    return next(_archive().rglob("*.parquet"))


def _archive_copy(folder: Path) -> Path:
    return Path(shutil.copytree(_archive(), folder / "archive"))


def _manifest(data: bytes, folder: Path) -> None:
    copy = _archive_copy(folder)
    (copy / "_manifest.json").write_bytes(data)
    _read_archive(copy)


def _read_archive(copy: Path) -> None:
    reader = ArchiveReader(copy)
    reader.points()
    reader.offsets()
    reader.count("offers", 0)
    reader.read("offers", archived.POINT, 0, last=5)


def _parquet_part(data: bytes, folder: Path) -> None:
    """A part with another content; the first byte says whether the manifest vouches for it."""
    copy = _archive_copy(folder)
    (copy / _part().relative_to(_archive())).write_bytes(data[1:])
    if data[:1] > b"\x7f":
        path = copy / "_manifest.json"
        manifest = json.loads(path.read_text())
        manifest["parts"][0]["sha256"] = hashlib.sha256(data[1:]).hexdigest()
        path.write_text(json.dumps(manifest))
    _read_archive(copy)


def _config(data: bytes, folder: Path) -> None:
    load_config(_written(folder, "leeway.yaml", data), {})


def _config_seeds() -> Sequence[bytes]:
    return [
        (ROOT / "streaming" / "starter.yaml").read_bytes(),
        (ROOT / "docs" / "recommender.example.yaml").read_bytes(),
    ]


def _access(data: bytes, folder: Path) -> None:
    read_access(_written(folder, "access.yaml", data)).by_token("x")


def _access_seeds() -> Sequence[bytes]:
    token = {"name": "shop", "hash": new_token()[1], "scopes": ["decide"], "points": "all"}
    certificate = {"name": "batch", "identity": "batch.example", "scopes": ["report"], "points": ["offers"]}
    return [json.dumps({"tokens": [token], "certificates": [certificate]}).encode()]


def _format(kind: str) -> Callable[[bytes, Path], None]:
    def run(data: bytes, folder: Path) -> None:
        from streaming.interop import read_file

        found, _ = read_file(_written(folder, "log", data), kind, "offers")
        if found:
            as_yaml("offers", infer(found))

    return run


def _forests() -> list[bytes]:
    return [trained(4, rounds=3, **changes).model_to_string().encode() for changes in ({}, {"objective": "binary"})]


def _forest(data: bytes, _folder: Path) -> None:
    forest = Forest.read(data.decode())
    if forest is not None and forest.width < 100:
        forest.predict(np.ones((2, forest.width - 1), np.float32), np.array([0, 69]))


def _format_seeds(name: str) -> Callable[[], Sequence[bytes]]:
    return lambda: [(ROOT / "tests" / "golden" / "formats" / name).read_bytes()]


HARNESSES = (
    Harness("policy", lambda: [_policy()], _snapshot(read_policy, None), (SnapshotError,), 300),
    Harness("policy_member", lambda: _members(_policy()), _snapshot(read_policy, _policy), (SnapshotError,), 300),
    Harness("forest", _forests, _forest, (ValueError,)),
    Harness("lists", lambda: [_lists()], _snapshot(read_recommender, None), (SnapshotError,)),
    Harness("lists_member", lambda: _members(_lists()), _snapshot(read_recommender, _lists), (SnapshotError,), 300),
    Harness("pointers", _pointer_seeds, _pointers, (SnapshotError,)),
    Harness("catalogue", _catalogue_seeds, _catalogue, (SnapshotError,)),
    Harness("table_parquet", _parquet, _table(".parquet"), (LeewayError,)),
    Harness("table_csv", lambda: [b"item_id,price,look\ni1,1.0,1|2\ni2,,3|4\n"], _table(".csv"), (LeewayError,)),
    Harness(
        "table_jsonl", lambda: [b'{"item_id": "i1", "price": 1.5, "look": [1, 2]}\n'], _table(".jsonl"), (LeewayError,)
    ),
    Harness("checkpoint", lambda: _members(_checkpoint_path(_learned()).read_bytes()), _checkpoint, mutations=25),
    Harness("log", _log_seeds, _log, (LogError,), 60),
    Harness("block", _block_seeds, _block, (ValueError,), 1_000),
    Harness("spool", lambda: [_spool_path().read_bytes()], _spool, (LogError,), 30),
    Harness("manifest", lambda: [(_archive() / "_manifest.json").read_bytes()], _manifest, (LogError,), 100),
    Harness(
        "archive",
        lambda: [b"\0" + _part().read_bytes(), b"\xff" + _part().read_bytes()],
        _parquet_part,
        (LogError, ConfigError),
        150,
    ),
    Harness("config", _config_seeds, _config, (ConfigError,), 20),
    Harness("access", _access_seeds, _access, (ConfigError,), 20),
    *(
        Harness(f"format_{kind}", _format_seeds(name), _format(kind), (ConfigError,))
        for kind, name in (
            ("dsjson", "personalizer.dsjson"),
            ("vw", "cb_adf.txt"),
            ("obd", "open_bandit.csv"),
            ("csv", "campaign.csv"),
        )
    ),
)
assert READERS.keys() == {"dsjson", "vw", "obd", "csv"}, "a new format wants a harness"
