"""Each reader on its corpus and some hundred mutations of it: what is no good is refused in words, and cheaply."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.fuzz.harness import CORPUS, Harness, mutations
from tests.fuzz.harnesses import HARNESSES

#: What reading inputs of some kilobytes may take at most, beside what the process has.
MOST_MIB = 512.0


def _peak_mib() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1_024.0


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


@pytest.mark.parametrize("harness", HARNESSES.values(), ids=list(HARNESSES))
@pytest.mark.timeout(120)  # who hangs is found
def test_nothing_but_a_refusal_comes_out(harness: Harness, tmp_path: Path) -> None:
    good, corpus = harness.seeds(), harness.corpus()
    folder = tmp_path / "input"
    _forget_peak()
    before = _peak_mib()
    for number, data in enumerate([*corpus, *mutations(corpus, harness.mutations, harness.name)]):
        folder.mkdir()
        try:
            was_refused = harness.refuses(data, folder)
        except Exception as error:
            error.add_note(f"input {number} of {harness.name}: {data[:2_000]!r}")
            raise
        if number < len(good):
            assert not was_refused, f"the good input {data[:200]!r} is refused"
        shutil.rmtree(folder)
    assert _peak_mib() - before < MOST_MIB


def test_a_defect_is_found(tmp_path: Path) -> None:
    def reader(data: bytes, _: Path) -> None:
        int(data)
        if len(data) > 5:
            raise KeyError("a defect")

    harness = Harness("none", lambda: [b"1234"], reader, (ValueError,))
    with pytest.raises(KeyError):  # noqa: PT012
        for data in mutations(harness.seeds(), 200, "any"):
            harness.refuses(data, tmp_path)


def test_each_folder_of_the_corpus_has_its_harness() -> None:
    assert {path.name for path in CORPUS.iterdir() if path.is_dir()} <= HARNESSES.keys()
