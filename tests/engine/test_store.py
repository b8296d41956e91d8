from __future__ import annotations

import io
import json
import os
import stat
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from engine.atomic_file import write_atomically
from engine.errors import SnapshotError
from engine.policy import Policy
from engine.store import FORMAT, PolicyStore, pack_policy, read_policy
from tests.engine.samples import NAME, actions, context, make_policy

POLICY = make_policy(update=3, uniform_share=0.25)
PACKED = pack_policy(POLICY)


def same(one: Policy, other: Policy) -> bool:
    request = POLICY.encoder.encode(context(), actions())
    return (
        one.version == other.version
        and one.digest() == other.digest()
        and one.created_ms == other.created_ms
        and one.point == other.point
        and one.predict(request).mean.tobytes() == other.predict(request).mean.tobytes()
    )


def test_a_policy_comes_back_whole(tmp_path: Path) -> None:
    store = PolicyStore(tmp_path)
    path = store.save(POLICY)
    assert path == store.path(NAME, POLICY.version)
    again = store.load(NAME, POLICY.version)
    assert same(again, POLICY)
    assert list(again.point.context) == list(POLICY.point.context), "the order of features is that of the columns"
    assert again.uniform_share == 0.25


def test_saving_does_not_make_current_and_publishing_does(tmp_path: Path) -> None:
    store = PolicyStore(tmp_path)
    assert store.current(NAME) is None
    store.save(POLICY)
    assert store.current(NAME) is None
    store.publish(POLICY)
    assert store.current(NAME) == POLICY.version
    newer = make_policy(update=4)
    store.publish(newer)
    assert store.current(NAME) == newer.version
    store.set_current(NAME, POLICY.version)
    assert store.current(NAME) == POLICY.version
    assert same(store.load(NAME, POLICY.version), POLICY)


def test_versions_are_listed_oldest_first_and_nothing_else(tmp_path: Path) -> None:
    store = PolicyStore(tmp_path)
    assert store.versions(NAME) == []
    policies = [make_policy(update=update) for update in (12, 7, 2)]
    for age, policy in enumerate(policies):
        os.utime(store.save(policy), ns=(age, age))
    store.set_current(NAME, policies[0].version)
    (tmp_path / NAME / f".{policies[0].version}.npz.1.2.tmp").write_bytes(b"left by a crash")
    (tmp_path / NAME / f"learner-{policies[0].version}.npz").write_bytes(b"of others")
    assert store.versions(NAME) == [policy.version for policy in policies]


def test_a_version_that_is_there_is_never_written_again(tmp_path: Path) -> None:
    store = PolicyStore(tmp_path)
    before = store.save(POLICY).stat()
    after = store.save(make_policy(update=3, uniform_share=0.25, created_ms=9)).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_a_policy_file_holds_plain_arrays_that_can_run_no_code() -> None:
    with np.load(io.BytesIO(PACKED), allow_pickle=False) as archive:
        assert all(archive[key].dtype.kind in "fiu" for key in archive.files)


@pytest.mark.parametrize("tenth", range(10))
def test_a_truncated_file_is_refused(tmp_path: Path, tenth: int) -> None:
    path = tmp_path / "policy.npz"
    path.write_bytes(PACKED[: len(PACKED) * tenth // 10])
    with pytest.raises(SnapshotError, match=r"policy\.npz: not a whole policy file .* restore it from a copy"):
        read_policy(path)


def test_a_truncated_file_of_any_length_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "policy.npz"
    for length in [*range(0, len(PACKED), 37), len(PACKED) - 1]:
        path.write_bytes(PACKED[:length])
        with pytest.raises(SnapshotError):
            read_policy(path)


def test_a_flipped_byte_is_refused_or_changes_nothing(tmp_path: Path) -> None:
    # What a byte of the archive's dates says is nobody's loss; whatever is read must be what was written.
    path = tmp_path / "policy.npz"
    refused = 0
    flips = [(place, 0xFF) for place in range(0, len(PACKED), 5)]
    # The method of compression and the flags of each member, where readers give up in ways of their own.
    for signature, offsets in ((b"PK\x03\x04", range(4, 12)), (b"PK\x01\x02", range(4, 14))):
        start = PACKED.find(signature)
        while start >= 0:
            flips += [(start + offset, bit) for offset in offsets for bit in (1, 8, 12, 0x80)]
            start = PACKED.find(signature, start + 1)
    for place, bits in flips:
        damaged = bytearray(PACKED)
        damaged[place] ^= bits
        path.write_bytes(damaged)
        try:
            assert same(read_policy(path), POLICY)
        except SnapshotError:
            refused += 1
    assert refused > len(flips) / 2


@pytest.mark.parametrize(
    "content", [b"", b"PK", b"not a policy", b"\x80\x04.", b"\x93NUMPY\x01\x00v\x00{", bytes(4_096)], ids=repr
)
def test_what_is_no_policy_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "policy.npz"
    path.write_bytes(content)
    with pytest.raises(SnapshotError, match="not a whole policy file"):
        read_policy(path)


def test_a_plain_array_is_no_policy_file(tmp_path: Path) -> None:
    path = tmp_path / "policy.npz"
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(SnapshotError, match="not a whole policy file"):
        read_policy(path)


def test_a_directory_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SnapshotError, match="not a whole policy file"):
        read_policy(tmp_path)


def repacked(change: Callable[[dict[str, object], dict[str, np.ndarray]], None]) -> bytes:
    """Return the file with another content, as a person with an editor could make it."""
    with np.load(io.BytesIO(PACKED), allow_pickle=False) as archive:
        arrays = dict(archive)
    manifest = json.loads(arrays.pop("manifest").tobytes())
    change(manifest, arrays)
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, manifest=np.frombuffer(json.dumps(manifest).encode(), np.uint8), **arrays)
    return buffer.getvalue()


def set_theta(manifest: dict[str, object], arrays: dict[str, np.ndarray]) -> None:
    arrays["oracle.theta"] = arrays["oracle.theta"] * 2.0


def drop_theta(manifest: dict[str, object], arrays: dict[str, np.ndarray]) -> None:
    del arrays["oracle.theta"]


def in_manifest(key: str, value: object) -> Callable[[dict[str, object], dict[str, np.ndarray]], None]:
    def change(manifest: dict[str, object], arrays: dict[str, np.ndarray]) -> None:
        manifest[key] = value

    return change


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (set_theta, "does not match its digest"),
        (in_manifest("learned", 10**6), "does not match its digest"),
        (in_manifest("uniform_share", 0.0), "does not match its digest"),
        (in_manifest("vocabulary", ["east", "north", "south"]), "does not match its digest"),
        (in_manifest("digest", "0" * 64), "does not match its digest"),
        (drop_theta, "not a whole policy file"),
        (in_manifest("oracle", "crystal_ball"), "crystal_ball"),
        (in_manifest("point", {"kontext": {}}), "kontext"),
        (in_manifest("format", FORMAT + 1), rf"format {FORMAT + 1} is not {FORMAT}; read it with the Leeway that"),
    ],
)
def test_a_changed_file_is_refused_with_its_reason(
    tmp_path: Path, change: Callable[[dict[str, object], dict[str, np.ndarray]], None], problem: str
) -> None:
    path = tmp_path / "policy.npz"
    path.write_bytes(repacked(lambda manifest, arrays: None))
    assert same(read_policy(path), POLICY), "the way of changing it is no damage by itself"
    path.write_bytes(repacked(change))
    with pytest.raises(SnapshotError, match=problem):
        read_policy(path)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(SnapshotError, match=r"g1\.0-00000000\.npz: no such policy file"):
        PolicyStore(tmp_path).load(NAME, "g1.0-00000000")


def test_a_file_under_another_name_is_refused(tmp_path: Path) -> None:
    store = PolicyStore(tmp_path)
    other = store.path(NAME, "g9.9-12345678")
    store.save(POLICY).rename(other)
    with pytest.raises(SnapshotError, match=f"holds {POLICY.version}"):
        store.load(NAME, "g9.9-12345678")


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"../../elsewhere", b"g1.0-00000000\n", bytes(100)])
def test_a_damaged_pointer_names_no_policy(tmp_path: Path, content: bytes) -> None:
    store = PolicyStore(tmp_path)
    store.publish(POLICY)
    (tmp_path / NAME / "CURRENT").write_bytes(content)
    label = store.current(NAME)
    assert label is not None
    with pytest.raises(SnapshotError):
        store.load(NAME, label)


def full_disk(*_: object) -> None:
    raise OSError(28, "No space left on device")


def files(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = PolicyStore(tmp_path)
    store.publish(POLICY)
    before = files(tmp_path)
    monkeypatch.setattr(os, "fsync", full_disk)
    newer = make_policy(update=4)
    with pytest.raises(SnapshotError, match=rf"{newer.version}\.npz: cannot be written \(No space left on device\)"):
        store.publish(newer)
    with pytest.raises(SnapshotError, match=r"CURRENT: cannot be written \(No space left"):
        store.set_current(NAME, "g1.0-00000000")
    assert files(tmp_path) == before, "old content stays, and nothing half-written is left"
    monkeypatch.undo()
    store.publish(newer)
    assert store.current(NAME) == newer.version


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_write_that_the_device_refuses_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")
    opened = Path.open
    monkeypatch.setattr(Path, "open", lambda self, mode: opened(Path("/dev/full"), mode))
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new" * 100_000)
    monkeypatch.undo()
    assert files(tmp_path) == {"file": b"old"}


def test_a_crash_before_the_rename_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"


def test_what_is_written_is_on_the_disk_before_it_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def record_fsync(descriptor: int) -> None:
        kind = "directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        size = os.fstat(descriptor).st_size
        steps.append(f"{kind} synced" + (f" with {size} bytes" if kind == "file" else ""))
        fsync(descriptor)

    def record_replace(self: Path, target: Path) -> Path:
        steps.append("renamed")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(Path, "replace", record_replace)
    write_atomically(path, b"content")
    assert steps == ["file synced with 7 bytes", "renamed", "directory synced"]


def test_threads_that_write_the_same_file_never_mix(tmp_path: Path) -> None:
    path = tmp_path / "CURRENT"
    contents = [bytes([i]) * 50_000 for i in range(8)]
    write_atomically(path, contents[0])

    def write(content: bytes) -> None:
        for _ in range(15):
            write_atomically(path, content)
            assert path.read_bytes() in contents

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(write, contents))
    assert files(tmp_path).keys() == {"CURRENT"}


def test_an_archive_with_a_damaged_member_says_which_file(tmp_path: Path) -> None:
    path = tmp_path / "policy.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("manifest.npy", b"no array")
    with pytest.raises(SnapshotError, match=r"policy\.npz: not a whole policy file"):
        read_policy(path)
