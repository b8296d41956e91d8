"""All harnesses by name."""

from __future__ import annotations

from tests.fuzz import files, records, requests
from tests.fuzz.harness import Harness

HARNESSES: dict[str, Harness] = {
    harness.name: harness for harness in (*records.HARNESSES, *requests.HARNESSES, *files.HARNESSES)
}
