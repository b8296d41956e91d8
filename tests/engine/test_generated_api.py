"""The committed code of the messages is what their definition generates."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from engine.api import generate

COMMITTED = generate.ROOT / "leeway" / "v1"


def test_committed_code_is_generated_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")  # the plugins stand beside the interpreter, wherever the path leads
    generated = {path.name: path.read_bytes() for path in generate.generate(tmp_path)}
    committed = {path.name: path.read_bytes() for path in COMMITTED.iterdir() if "_pb2" in path.name}
    assert committed.keys() == generated.keys()
    changed = sorted(name for name, content in generated.items() if committed[name] != content)
    assert changed == [], "run: python -m engine.api.generate"


def test_every_definition_is_generated() -> None:
    assert {path.stem for path in COMMITTED.glob("*.proto")} == set(generate.PROTOS)


def test_a_missing_compiler_plugin_is_told_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, path: None)
    with pytest.raises(RuntimeError, match=r"protoc-gen-mypy.* install the extra of developers, leeway\[dev\]"):
        generate.generate(tmp_path)
