"""Processes that are started one after another, awaited together, and ended in the opposite order whatever happens."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from engine.errors import LeewayError

#: Longer than any of them needs to end in order: `leeway work` waits for its roles, Kafka for its files.
END_S = 45.0


def free_port(*also: int) -> int:
    """Return a port of the loopback that is free together with those so far above it.

    It lies below the range from which the system gives out ports by itself.
    """
    for _ in range(1_000):
        port = random.randrange(20_000, 30_000)
        with contextlib.suppress(OSError), ExitStack() as listeners:
            for offset in (0, *also):
                listeners.enter_context(socket.create_server(("127.0.0.1", port + offset)))
            return port
    raise LeewayError("no port between 20000 and 30000 of 127.0.0.1 is free; see what listens there")


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM come after the block: in its midst, a process that is being started would be left over."""
    caught: list[int] = []
    former = {
        number: signal.signal(number, lambda number, _frame: caught.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
        if caught:
            signal.raise_signal(caught[0])


class Crew:
    """Runs processes, each with a file of its own for what it says.

    Parameters
    ----------
    messages
        Folder of these files.
    say
        Told what happens.

    Attributes
    ----------
    pids : dict of str to int
        The process of each name.
    """

    def __init__(self, messages: Path, say: Callable[[str], None]) -> None:
        self._messages = messages
        self._say = say
        self._stack = ExitStack()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.pids: dict[str, int] = {}

    def __enter__(self) -> Self:
        self._messages.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.__exit__(kind, error, at)

    def start(self, name: str, command: Sequence[str | Path], environment: Mapping[str, str] = {}) -> None:
        """Start a process; it does not hear the terminal's Ctrl-C, which is for who started the crew."""
        with (self._messages / f"{name}.log").open("ab") as sink, undisturbed():
            process = subprocess.Popen(
                [str(word) for word in command],
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                start_new_session=True,
            )
            self._processes[name] = process
            self.pids[name] = process.pid
            self._stack.callback(self._end, name, process)

    def at_end(self, act: Callable[[], None]) -> None:
        """Do something when all that is started after this has ended."""
        self._stack.callback(act)

    def check(self) -> None:
        """Raise ``LeewayError`` where a process has ended by itself."""
        for name, process in self._processes.items():
            if process.poll() is not None:
                raise LeewayError(
                    f"{name} ended with status {process.returncode}; its messages are in {self._messages / name}.log"
                )

    def wait(self, waiting: Mapping[str, Callable[[], str]], end: float) -> dict[str, float]:
        """Wait until nobody has a reason left for not being ready.

        Parameters
        ----------
        waiting
            For each name what says why it is not ready; empty: it is.
        end
            Until when, on the monotonic clock.

        Returns
        -------
        dict of str to float
            Seconds from now until each was ready.

        Raises
        ------
        LeewayError
            One ended, or is not ready in time.
        """
        began = time.monotonic()
        ready: dict[str, float] = {}
        while len(ready) < len(waiting):
            self.check()
            reasons = {name: why() for name, why in waiting.items() if name not in ready}
            now = time.monotonic()
            ready |= {name: round(now - began, 1) for name, reason in reasons.items() if not reason}
            late = {name: reason for name, reason in reasons.items() if reason}
            if late and now > end:
                words = "; ".join(f"{name}: {reason}" for name, reason in late.items())
                raise LeewayError(f"not ready in time; {words}; messages are in {self._messages}")
            time.sleep(0.1)
        return ready

    def _end(self, name: str, process: subprocess.Popen[bytes]) -> None:
        if process.poll() is not None:
            return
        try:
            process.terminate()
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._say(f"{name} did not end in {END_S:.0f} s and is killed; see {self._messages / name}.log")
        finally:
            # Its session is its own: nobody else is killed, and no child of it is left.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
