"""All roles on one machine: a supervisor that starts them, starts again what falls, and ends them in order."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from engine.atomic_file import write_atomically
from engine.errors import ConfigError, LeewayError
from streaming.config import Config

logger = logging.getLogger(__name__)

LIFELINE = "LEEWAY_LIFELINE_FD"
JOINER = "join"
#: Exit status that a restart cannot cure: usage or configuration.
FATAL = 2


def run_file(config: Config, role: str) -> Path:
    """Return where a role says how it can be reached."""
    return config.data_dir / "run" / f"{role}.json"


def announce(config: Config, role: str, **facts: object) -> None:
    """Write a role's run file, with the log that it uses; raises ``LeewayError`` when the disk refuses."""
    path = run_file(config, role)
    try:
        write_atomically(path, json.dumps({"pid": os.getpid(), "log": config.log_facts(), **facts}).encode())
    except OSError as error:
        raise LeewayError(f"{path}: cannot be written ({error.strerror}); make room or mend the directory") from error


def withdraw(config: Config, role: str) -> None:
    """Remove a role's run file, unless another process has announced itself since."""
    facts = whereabouts(config, role)
    if facts is not None and facts.get("pid") == os.getpid():
        run_file(config, role).unlink(missing_ok=True)


def whereabouts(config: Config, role: str) -> dict[str, object] | None:
    """Return what a role announced, or ``None`` where it does not run."""
    try:
        facts = json.loads(run_file(config, role).read_text())
        os.kill(int(facts["pid"]), 0)
    except (FileNotFoundError, ValueError, KeyError, ProcessLookupError):
        return None
    except PermissionError:
        pass  # it lives, and belongs to somebody else
    return dict(facts)


def serving_role(number: int) -> str:
    """Return the role of one serving process of several, counted from 1."""
    return f"serve-{number}"


def hold_role(config: Config, role: str) -> int:
    """Be the only process of a role on this data directory, until this process ends, however it ends.

    Waits for one that is ending; raises ``ConfigError`` where one goes on. Returns the descriptor that holds it: who
    closes it lets the role go.
    """
    path = run_file(config, role).with_suffix(".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)  # open as long as the process lives
    except OSError as error:
        raise LeewayError(f"{path}: cannot be written ({error.strerror}); make room or mend the directory") from error
    patience_s = (config.serving.drain + config.serving.drain_grace) / 1_000.0 + 1.0
    end = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if time.monotonic() > end:
                os.close(descriptor)
                facts = whereabouts(config, role) or {}
                raise ConfigError(
                    f"data_dir {config.data_dir}: another `leeway {role}` (pid {facts.get('pid', 'unknown')}) works "
                    "there; stop it, or give this one a data_dir of its own"
                ) from None
        time.sleep(0.1)


def joiners(config: Config) -> list[str]:
    """Return the names under which members of the join have announced themselves and run."""
    return [name for name in _joiner_names(config) if whereabouts(config, name) is not None]


def announce_joiner(config: Config, **facts: object) -> str:
    """Write the run file of a member of the join, of which a data directory may have several; return its name.

    Those of members that were killed are removed. Raises ``LeewayError`` when the disk refuses.
    """
    for name in _joiner_names(config):
        if whereabouts(config, name) is None:
            run_file(config, name).unlink(missing_ok=True)
    name = f"{JOINER}-{os.getpid()}"
    announce(config, name, **facts)
    return name


def refuse_other_log(config: Config) -> None:
    """Raise ``ConfigError`` where a process of this data directory uses another log than the configuration names.

    A command that reads the log would look at one that nothing is in, and say that all is well. Clusters are the same
    if they have a broker's address in common: an installation may name some of them here and others there.
    """
    ours = config.log_facts()
    for role in ("serve", "work", *joiners(config)):
        facts = whereabouts(config, role) or {}
        theirs = facts.get("log")
        if isinstance(theirs, dict) and not _same_log(ours, theirs):
            raise ConfigError(
                f"this command would use {_named(ours)}, but `leeway {role.partition('-')[0]}` (pid {facts['pid']}), "
                f"which runs on data_dir {config.data_dir}, uses {_named(theirs)}; {_use(ours, theirs)}"
            )


def _same_log(ours: Mapping[str, str], theirs: Mapping[str, str]) -> bool:
    if any(ours[name] != theirs.get(name) for name in ("kind", "topic_prefix")):
        return False
    # A data directory has one embedded log, wherever the directory is mounted.
    return ours["kind"] == "embedded" or bool(_brokers(ours) & _brokers(theirs))


def _brokers(log: Mapping[str, str]) -> set[str]:
    return set(str(log.get("address", "")).removeprefix("kafka://").split(","))


def _named(log: Mapping[str, str]) -> str:
    prefix = f" with topic_prefix {log['topic_prefix']!r}" if log.get("topic_prefix") else ""
    return f"the {log.get('kind')} log at {log.get('address')}{prefix}"


def _use(ours: Mapping[str, str], theirs: Mapping[str, str]) -> str:
    """Return what to do to use their log."""
    if theirs.get("kind") == "embedded":
        return "leave --log out, and set log.kind to embedded"
    prefix = theirs.get("topic_prefix", "")
    more = "" if prefix == ours["topic_prefix"] else f", and set log.topic_prefix to {prefix!r}"
    return f"add: --log {theirs.get('address')}{more}"


def _joiner_names(config: Config) -> list[str]:
    return sorted(path.stem for path in run_file(config, JOINER).parent.glob(f"{JOINER}-*.json"))


def hold_lifeline() -> None:
    """End this process when its supervisor is gone, however it went: the kernel closes the pipe for us."""
    descriptor = os.environ.pop(LIFELINE, None)
    if descriptor is None:
        return

    def watch() -> None:
        os.read(int(descriptor), 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()


@dataclass(frozen=True)
class Command:
    """What a supervised process does: ``leeway ARGUMENTS``, beside its name in messages.

    Parameters
    ----------
    name
        As the operator calls it.
    arguments
        The command and its options; ``--config`` is added.
    environment
        Variables of its own.
    """

    name: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


def commands(config: Config, only: Collection[str] = (), number: int = 0) -> list[Command]:
    """Return what ``leeway up`` starts, in the order in which it is stopped too.

    What serves stops first, and what it recorded is still joined.

    Parameters
    ----------
    config
        The configuration.
    only
        Of ``serve`` and ``work``; empty: both.
    number
        So many processes join; 0: ``work`` does.
    """
    chosen = only or ("serve", "work")
    found = [Command("serve", ("serve",))] if "serve" in chosen else []
    if "work" in chosen:
        identity = getattr(config.log, "instance_id", None)
        for which in range(1, number + 1):
            # Static members of a group must differ, and be the same after a restart.
            own = {"LEEWAY_LOG__INSTANCE_ID": f"{identity}-{JOINER}-{which}"} if identity else {}
            found.append(Command(f"{JOINER} {which}", (JOINER,), own))
        found.append(Command("work", ("work", "--without-join") if number else ("work",)))
    return found


@dataclass
class Child:
    """One command and its process."""

    role: str
    arguments: list[str]
    environment: Mapping[str, str]
    process: subprocess.Popen[bytes] | None = None
    failures: int = 0
    started: float = 0.0
    next_start: float = field(default=0.0)


class Supervisor:
    """Runs each command until told to stop.

    A role that falls is started again after a pause that doubles up to ten seconds; one that says its
    configuration is wrong ends everything, with its exit status.

    Parameters
    ----------
    config_path
        Handed to every command.
    commands
        In the order of their start; they are stopped in this order too.
    verbose
        Hand ``--verbose`` on.
    together
        Stop them all at once instead.
    on_fall
        Is told the name of each command that ended by itself.
    """

    def __init__(
        self,
        config_path: Path,
        commands: Sequence[Command],
        *,
        verbose: bool = False,
        together: bool = False,
        on_fall: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._together = together
        self._on_fall = on_fall
        program = [sys.executable, "-m", "streaming.cli", *(["--verbose"] if verbose else [])]
        self._children = [
            Child(c.name, [*program, *c.arguments, "--config", str(config_path)], c.environment) for c in commands
        ]
        self._stop = threading.Event()
        self._hurry = threading.Event()
        self._lifeline, self._hold = os.pipe()
        os.set_inheritable(self._lifeline, True)

    def on_signal(self, _signum: int, _frame: object) -> None:
        """Ask for the end; asked twice, pauses are left out."""
        (self._hurry if self._stop.is_set() else self._stop).set()

    def run(self, on_start: Callable[[], None] = lambda: None) -> int:
        """Supervise until a signal, and return the exit status."""
        signal.signal(signal.SIGTERM, self.on_signal)
        signal.signal(signal.SIGINT, self.on_signal)
        status = 0
        on_start()
        while not self._stop.is_set():
            for child in self._children:
                code = self._look(child)
                if code == FATAL:
                    status = FATAL
                    self._stop.set()
            self._stop.wait(0.2)
        self._end()
        return status

    def _look(self, child: Child) -> int | None:
        now = time.monotonic()
        if child.process is None:
            if now >= child.next_start:
                self._start(child)
            return None
        code = child.process.poll()
        if code is None:
            if now - child.started > 60.0:
                child.failures = 0
            return None
        child.process = None
        pause = min(0.5 * 2**child.failures, 10.0)
        child.failures += 1
        child.next_start = now + pause
        self._on_fall(child.role)
        if code != FATAL:
            logger.error("%s ended with status %d; starting it again in %.1f s", child.role, code, pause)
        return code

    def _start(self, child: Child) -> None:
        child.started = time.monotonic()
        child.process = subprocess.Popen(
            child.arguments,
            env={**os.environ, **child.environment, LIFELINE: str(self._lifeline)},
            pass_fds=[self._lifeline],
            # A Ctrl-C in the terminal goes to the supervisor alone, which ends the roles in order.
            start_new_session=True,
        )

    def _end(self) -> None:
        living = [child.process for child in self._children if child.process is not None]
        for those in [living] if self._together else [[process] for process in living]:
            for process in those:
                process.terminate()
            while those := [process for process in those if process.poll() is None]:
                if self._hurry.is_set():
                    for process in those:
                        process.send_signal(signal.SIGTERM)
                    self._hurry.clear()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    those[0].wait(0.1)
        os.close(self._hold)
        os.close(self._lifeline)
