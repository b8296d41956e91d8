"""The pictures of the console and of MLflow in the documentation, made anew in a real browser.

``python -m tests.integration.pictures --dir docs/images`` runs a real service with traffic, three retrainings and a
change at the end, and draws what its console and ``mlflow ui`` show of it. It takes some minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, Page, ViewportSize

from tests.browser import PATIENCE_MS, SMALL, launched
from tests.integration.operated import DECISIONS, POINT, console, send, trained, used
from tests.integration.service import PATIENCE_S, Service, eventually, free_port, leeway
from training.mlflow_import import mlflow

SCREEN: ViewportSize = {"width": 1_000, "height": 700}
WIDE: ViewportSize = {"width": 1_500, "height": 950}
VIEWS = {
    "health": "health",
    "live": f"live?point={POINT}",
    "decision": "decision?id=d3",
    "policies": f"policies?point={POINT}",
    "alarms": "alarms",
    "generations": f"generations?point={POINT}",
    "join": "join",
}
KINDS: dict[str, tuple[ViewportSize, Literal["light", "dark"]]] = {
    "": (SCREEN, "light"),
    "-dark": (SCREEN, "dark"),
    "-small": (SMALL, "light"),
}


def draw_console(browser: Browser, address: str, directory: Path) -> None:
    """Draw every page of the console, light, dark and small."""
    for kind, (viewport, scheme) in KINDS.items():
        context = browser.new_context(viewport=viewport, color_scheme=scheme)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        for name, view in VIEWS.items():
            page.goto(f"{address}#/{view}")
            page.wait_for_selector("main h1")
            page.wait_for_selector("main:not([aria-busy])")
            page.screenshot(path=directory / f"console-{name}{kind}.png")
        context.close()


@contextlib.contextmanager
def mlflow_ui(service: Service) -> Iterator[str]:
    """Run ``mlflow ui`` as docs/training.md says, and give its address."""
    address = f"http://127.0.0.1:{(port := free_port())}"
    store = ["--backend-store-uri", service.config.tracking_uri]
    command = [sys.executable, "-m", "mlflow", "ui", *store, "--port", str(port), "--host", "127.0.0.1"]
    with (service.path.parent / "mlflow.txt").open("w") as sink:
        process = subprocess.Popen(
            [*command, "--workers", "1"],
            env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
        )
        try:
            eventually(lambda: _answers(f"{address}/health"), "mlflow ui to answer", 8 * PATIENCE_S)
            yield address
        finally:
            process.terminate()
            process.wait()


def draw_mlflow(browser: Browser, address: str, runs: list[str], experiment: str, directory: Path) -> None:
    """Draw the runs, two of them compared, the plots of one, and the versions of the model."""
    compared = f"compare-runs?runs={json.dumps(runs[:2])}&experiments={json.dumps([experiment])}"
    pages = {
        "runs": (f"experiments/{experiment}/runs", "text=offers refused"),
        "compare": (compared, "text=Run details"),
        "plots": (f"experiments/{experiment}/runs/{runs[0]}/artifacts/plots/estimates.png", "img"),
        "model": (f"models/leeway-{POINT}", "text=champion"),
        "version": (f"models/leeway-{POINT}/versions/2", "text=refused"),
    }
    context = browser.new_context(viewport=WIDE)
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    for name, (path, shown) in pages.items():
        page.goto(f"{address}/#/{path}")
        _settled(page, shown)
        page.screenshot(path=directory / f"mlflow-{name}.png", mask=[page.get_by_text("Path: ")], mask_color="#ffffff")
    context.close()


def _runs(service: Service) -> tuple[list[str], str]:
    """Return the runs, the newest first, and the id of their experiment."""
    client = mlflow.MlflowClient(service.config.tracking_uri)
    experiment = client.get_experiment_by_name(service.config.registry.experiment).experiment_id
    return [run.info.run_id for run in client.search_runs([experiment])], experiment


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5.0) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _settled(page: Page, shown: str) -> None:
    page.wait_for_selector(shown)
    page.locator(shown).first.evaluate("node => node.scrollIntoView()")
    page.wait_for_timeout(15_000)  # MLflow's page asks again and again, and says nowhere that it is done


def main() -> None:
    """Draw all pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dir", type=Path, required=True, help="where the pictures go")
    directory = parser.parse_args().dir
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="leeway-") as place, used(Path(place)) as service, launched() as browser:
        with service.client() as client:
            send(client, 2 * DECISIONS, DECISIONS)
            service.settled()
            trained(service, 3 * DECISIONS)
            send(client, 3 * DECISIONS, 400, basket=2.0)
            service.settled()
        eventually(lambda: "basket" in leeway("drift", "list", "--config", service.path).stdout, "the alarm")
        with console(service, service.path) as address:
            draw_console(browser, address, directory)
        with mlflow_ui(service) as address:
            draw_mlflow(browser, address, *_runs(service), directory)


if __name__ == "__main__":
    main()
