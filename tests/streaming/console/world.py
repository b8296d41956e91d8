"""An installation with something of everything, and its console on a free port."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from engine.policy import Policy, initial_policy
from engine.records import (
    REACTION_HOLD_PROMOTION,
    Action,
    Alarm,
    Decision,
    Features,
    Generation,
    GenerationStatistics,
    Outcome,
    Value,
)
from engine.sampling import draw
from engine.serving.tokens import new_token
from engine.store import PolicyStore
from streaming.config import Config, load_config
from streaming.console.server import ConsoleServer
from streaming.joiner import JoinerRole
from streaming.log import Message
from streaming.opening import open_log
from streaming.topics import ALARMS, GENERATIONS, MONITOR_STATE
from streaming.wire import message_of
from tests.streaming.samples import Clock

POINT, OTHER = "offers", "banners"
NOW_MS = 1_767_225_600_000
WINDOW_MS = 600_000
#: What somebody might send to run a script in an operator's browser.
EVIL = '<img src=x onerror="document.title=1"><script>document.title=1</script>'
DECISIONS = 200


def written(directory: Path, **serving: Any) -> Path:
    """Write a configuration; return its path."""
    path = directory / "leeway.yaml"
    point = {"context": {"country": {"type": "text"}}, "reward": {"window": "10m", "grace": "0s"}}
    text = {
        "version": 1,
        "data_dir": "data",
        "decision_points": {POINT: point, OTHER: point},
        "log": {"partitions": 2, "fsync": False},
        "serving": {"audit_log": "audit.jsonl", **serving},
    }
    path.write_text(yaml.safe_dump(text))
    return path


def decision(policy: Policy, number: int, country: str) -> Decision:
    """Return the ``number``-th decision, as the server would have made it: uniform, by a policy that knows nothing."""
    made = Decision(
        decision_id=f"d{number}",
        decision_point=policy.name,
        time_ms=NOW_MS + number * 1_000,
        policy_version=policy.version,
        context=Features(named={"country": Value(text=country)}),
        actions=[Action(id="none"), Action(id="large")],
        salt=policy.point.policy.salt,
    )
    encoded = policy.encoder.encode(made.context, made.actions, b"")
    prediction = policy.predict(encoded)
    made.scores.extend(prediction.mean.tolist())
    made.probabilities.extend(policy.pmf(prediction, encoded.available).tolist())
    made.chosen = draw(made.decision_id, made.salt, list(made.probabilities))
    return made


def filled(path: Path, *, sent: str = EVIL, rewarded: Callable[[int], bool] = lambda n: n % 2 == 0) -> Config:
    """Write decisions, outcomes, their feedback, alarms, policies and generations; ``sent`` stands in their texts."""
    config = load_config(path, {})
    store = PolicyStore(config.policy_dir)
    policy = initial_policy(POINT, config.points()[POINT], NOW_MS)
    store.publish(policy)
    made = [decision(policy, number, "NL" if number else sent) for number in range(DECISIONS)]
    outcomes = [
        Outcome(decision_id=f"d{n}", outcome_id=f"o{n}", time_ms=NOW_MS + n * 1_000 + 500, value=1.0)
        for n in range(DECISIONS)
        if rewarded(n)
    ]
    alarms = [
        Alarm(
            alarm_id=f"{name}-alarm", decision_point=name, monitor="features", stream="country", effect=0.5,
            change_ms=NOW_MS + 50_000, detected_ms=NOW_MS + 60_000, explanation=f"{name} changed: {sent}",
            reactions=[REACTION_HOLD_PROMOTION],
        )
        for name in (POINT, OTHER)
    ]  # fmt: skip
    records: list[Decision | Outcome] = [*made, *outcomes]
    messages = [message_of(record) for record in records]
    messages += [Message(ALARMS, a.decision_point.encode(), a.SerializeToString(), NOW_MS) for a in alarms]
    for g, reward in enumerate((0.5, 0.6, 0.58)):
        book = GenerationStatistics(
            decision_point=POINT, generation=g, feedback=1_000, reward_sum=reward * 1_000,
            reward_square_sum=reward * 1_000, positives=round(reward * 1_000),
        )  # fmt: skip
        messages.append(Message(MONITOR_STATE, f"generation/{POINT}/{g}".encode(), book.SerializeToString(), 0))
        if g:
            entry = Generation(
                decision_point=POINT, generation=g, policy_version=f"g{g}.0-00000000", promoted=True, run_id="r",
                registry_version=str(g), oracle="linear", estimate=0.6, estimate_error=0.01, trained_ms=NOW_MS,
                reason="schedule", verdict=f"promoted: better: {sent}",
            )  # fmt: skip
            messages.append(Message(GENERATIONS, POINT.encode(), entry.SerializeToString(), 0))
    with closing(open_log(config)) as log:
        log.append(messages)
        rewards = {name: point.reward for name, point in config.points().items()}
        late_ms = NOW_MS + DECISIONS * 1_000 + 2 * WINDOW_MS
        clock = Clock()
        with closing(JoinerRole(log, rewards, clock)) as role:
            for clock.now_ms in (NOW_MS, late_ms):  # it reads them while their windows are open
                while role.step():
                    pass
    return config


def entry(name: str, scopes: list[str], points: Any = "all") -> tuple[str, dict[str, Any]]:
    """Return a token and its entry in the file of those who may call."""
    secret, digest = new_token()
    return secret, {"name": name, "hash": digest, "scopes": scopes, "points": points}


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: Any


@dataclass
class Page:
    """A console that answers."""

    port: int
    directory: Path

    def ask(self, path: str, token: str | None = None, form: object = None, **headers: str) -> Answer:
        """Send one request; with a ``form`` a change."""
        sent = {} if token is None else {"authorization": f"Bearer {token}"}
        if form is not None:
            sent["content-type"] = "application/json"
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            verb, data = ("GET", None) if form is None else ("POST", json.dumps(form).encode())
            connection.request(verb, path, data, sent)
            answer = connection.getresponse()
            text = answer.read().decode()
        kind = answer.headers.get("content-type", "")
        said = {name.lower(): value for name, value in answer.headers.items()}
        return Answer(answer.status, said, json.loads(text) if "json" in kind else text)

    def change(self, path: str, form: object, token: str | None = None) -> Answer:
        """Send a change as the console's own page does."""
        key = self.ask("/api/session", token).body.get("change_key", "")
        return self.ask(path, token, form, x_leeway_change=key)

    def audited(self) -> list[dict[str, str]]:
        """Return the lines of the audit log."""
        path = self.directory / "audit.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@contextlib.contextmanager
def serving(path: Path) -> Iterator[Page]:
    """Serve the console for a block."""
    server = ConsoleServer(load_config(path, {}), "127.0.0.1", 0)
    ready = threading.Event()
    thread = threading.Thread(target=server.run, args=(ready.set,))
    thread.start()
    try:
        ready.wait(30)
        yield Page(server.port, path.parent)
    finally:
        server.stop()
        thread.join()
