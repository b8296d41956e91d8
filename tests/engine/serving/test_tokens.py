"""Tokens at rest, and the file of those who may call as it changes."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from engine.errors import ConfigError
from engine.serving.access_watcher import AccessWatcher
from engine.serving.tokens import new_token, read_access
from tests.engine.samples import NAME
from tests.engine.serving.world import AccessFile, calling, served

HASH = "sha256:" + "0" * 64
ENTRY = {"name": "shop", "hash": HASH, "scopes": ["decide"], "points": "all"}


def test_a_token_is_long_and_new_each_time_and_only_its_hash_is_kept(tmp_path: Path) -> None:
    tokens = [new_token() for _ in range(50)]
    assert len({token for token, _ in tokens}) == 50
    token, digest = tokens[0]
    assert token.startswith("leeway_")
    assert len(token) >= 7 + 43  # 256 bits
    assert digest == "sha256:" + hashlib.sha256(token.encode()).hexdigest()
    file = AccessFile(tmp_path / "access.json")
    secret = file.add("shop", ["decide"])
    assert secret not in file.path.read_text()


def test_the_file_is_yaml_or_json_and_says_who_may_what(tmp_path: Path) -> None:
    path = tmp_path / "access.yaml"
    token, digest = new_token()
    path.write_text(
        f"tokens:\n- {{name: shop, hash: {digest}, scopes: [admin], points: [offers], expires: 2027-01-01T00:00:00Z}}\n"
        "certificates:\n- {name: batch, identity: batch.example.org, scopes: [report], points: all}\n"
    )
    access = read_access(path)
    for _ in range(2):  # the second time from those that were right before
        caller = access.by_token(token)
        assert caller is not None
        assert caller.name == "token shop"
        assert caller.scopes == {"admin", "read"}
        assert caller.points == frozenset({"offers"})
        assert caller.expires_ms == 1_798_761_600_000
        assert access.by_token(token + "x") is access.by_token(token[:-1]) is access.by_token("") is None
    batch = access.by_certificate(["unknown", "batch.example.org"])
    assert batch is not None
    assert (batch.name, batch.points) == ("certificate batch", None)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("tokens: [", "not readable as YAML"),
        ("- 1", "file: .*dictionary"),
        (None, "file: .*dictionary"),
        ({"tokens": [{**ENTRY, "scopes": ["decde"]}]}, r"tokens\.0\.scopes\.0: .*'decide', 'report'"),
        ({"tokens": [{**ENTRY, "scopes": []}]}, r"tokens\.0\.scopes: .*at least 1"),
        ({"tokens": [{**ENTRY, "points": []}]}, r"tokens\.0\.points"),
        ({"tokens": [{name: ENTRY[name] for name in ("name", "hash", "scopes")}]}, r"tokens\.0\.points: .*required"),
        ({"tokens": [{**ENTRY, "hash": "leeway_plain"}]}, r"tokens\.0\.hash"),
        ({"tokens": [{**ENTRY, "expires": "2027-01-01T00:00:00"}]}, r"tokens\.0\.expires: .*timezone"),
        ({"tokens": [{**ENTRY, "scope": "decide"}]}, r"tokens\.0\.scope: .*not permitted"),
        ({"tokens": [ENTRY, {**ENTRY, "hash": "sha256:" + "1" * 64}]}, "name 'shop' stands twice"),
        ({"tokens": [ENTRY, {**ENTRY, "name": "other"}]}, "hash .* stands twice"),
        ({"token": []}, "token: .*not permitted"),
    ],
)
def test_a_file_with_a_mistake_is_refused_by_its_place(tmp_path: Path, content: Any, words: str) -> None:
    path = tmp_path / "access.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    with pytest.raises(ConfigError, match=words) as refused:
        read_access(path)
    assert str(path) in str(refused.value)
    assert "leeway_plain" not in str(refused.value)  # it may be a token


def test_a_file_that_anybody_may_write_lets_nobody_in(tmp_path: Path) -> None:
    file = AccessFile(tmp_path / "access.json")
    file.add("shop", ["decide"])
    file.path.chmod(0o666)
    with pytest.raises(ConfigError, match="chmod o-w"):
        read_access(file.path)


def test_the_file_is_read_again_and_a_broken_one_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = AccessFile(tmp_path / "access.json")
    old = file.add("old", ["decide"])
    watcher = AccessWatcher(file.path, 60.0)
    before = watcher.current()
    assert before.by_token(old) is not None
    watcher.look()
    assert watcher.current() is before

    new = file.add("new", ["decide"])
    file.remove("old")
    watcher.look()
    assert watcher.current().by_token(old) is None  # though it was right before
    assert watcher.current().by_token(new) is not None

    good = file.path.read_text()
    for spoil in (lambda: file.path.write_text("tokens: ["), file.path.unlink):
        caplog.clear()
        spoil()
        watcher.look()
        watcher.look()
        assert watcher.current().by_token(new) is not None
        (record,) = caplog.records
        assert record.levelno == logging.ERROR
        assert str(file.path) in record.message
        assert "what stood there before is still in force" in record.message
    file.path.write_text(json.dumps({"tokens": []}))
    watcher.look()
    assert watcher.current().by_token(new) is None
    file.path.write_text(good)
    watcher.look()
    assert watcher.current().by_token(new) is not None


def test_a_running_server_takes_back_a_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.serving.server._LOOK_S", 0.02)
    file = AccessFile(tmp_path / "access.json")
    gone, left = file.add("gone", ["decide"], [NAME]), file.add("left", ["decide"], [NAME])
    with served(tmp_path, access_file=file.path) as world:
        with calling(world.target, gone) as caller:
            assert caller.code("Decide") is grpc.StatusCode.OK
            file.remove("gone")
            for _ in range(500):  # half a minute at most
                if caller.code("Decide") is grpc.StatusCode.UNAUTHENTICATED:
                    break
            assert caller.code("Decide") is grpc.StatusCode.UNAUTHENTICATED
        with calling(world.target, left) as caller:
            assert caller.code("Decide") is grpc.StatusCode.OK


def test_a_server_does_not_start_without_its_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="leeway token create"), served(tmp_path, access_file=tmp_path / "none.yaml"):
        pass
