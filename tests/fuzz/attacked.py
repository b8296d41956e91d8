"""The server that is attacked: a real ``leeway serve`` with a decision point, a recommender, and HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.engine.recommender import shop
from tests.engine.samples import NAME, POINT, request
from tests.engine.serving.world import REQUESTS
from tests.fuzz.attack import Attack
from tests.integration.service import Service, running, settings


def resident_mib(pid: int) -> float:
    """Return the resident memory of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1_024.0


@contextmanager
def attacked(folder: Path) -> Iterator[tuple[Service, Callable[[int], Attack]]]:
    """Serve; the second is called with a seed."""
    point = POINT.model_dump(mode="json", exclude_unset=True)
    written = settings({NAME: {**point, "retraining": {"enabled": False}}}, http={"port": 0}, idempotency_cache=1_000)
    written["recommenders"] = {shop.NAME: {**shop.SETTINGS, "retraining": {"enabled": False}}}
    with running(folder, written, "serve") as service:
        facts = service.facts("serve")
        assert facts is not None
        yield service, lambda seed: Attack(service.target, facts["http_port"], REQUESTS, request(), seed)
