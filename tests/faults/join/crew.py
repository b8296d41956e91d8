"""Joiners in processes of their own, and their ends."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.faults.join.member import Orders

ROOT = Path(__file__).parents[3]
PATIENCE_S = 90.0


class Crew:
    """All joiners that there are now.

    Parameters
    ----------
    orders
        What the joiner of a number has to do.
    folder
        For what they complain of.
    """

    def __init__(self, orders: Callable[[int], Orders], folder: Path) -> None:
        self.members: list[Member] = []
        self._orders = orders
        self._folder = folder
        self._heard = threading.Condition()

    def hire(self, *numbers: int) -> None:
        """Start more joiners."""
        for number in numbers:
            self.members.append(Member(self._orders(number), self._folder / f"joiner-{number}.err", self._heard))

    def begun(self) -> dict[Member, int]:
        """Return how many transactions each has begun."""
        return {member: member.begun for member in self.members}

    def await_transaction(self, begun: Mapping[Member, int]) -> Member:
        """Return the first joiner that begins another transaction than those."""

        def busy() -> Member | None:
            return next((member for member in self.members if member.begun > begun[member]), None)

        with self._heard:
            self._heard.wait_for(lambda: busy() or not all(member.alive for member in self.members), PATIENCE_S)
        member = busy()
        assert member, f"no transaction for {PATIENCE_S} s; {self.report()}"
        return member

    def report(self) -> str:
        """Say what is known of them."""
        return "\n".join(member.report() for member in self.members)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for member in self.members:
            member.dispose()


class Member:
    """A joiner that is started, killed and started again.

    Parameters
    ----------
    orders
        What it has to do.
    complaints
        The file to which its standard error goes.
    heard
        Is notified of all that it says.

    Attributes
    ----------
    begun : int
        Its transactions, over all its lives.
    errors : list of str
        The steps that failed; the log may be away for a while.
    """

    def __init__(self, orders: Orders, complaints: Path, heard: threading.Condition) -> None:
        self.begun = 0
        self.errors: list[str] = []
        self._orders = orders
        self._complaints = complaints
        self._heard = heard
        self._in_transaction = False
        self.start()

    def start(self) -> None:
        """Start it, for the first time or again."""
        self._in_transaction = False
        with self._complaints.open("a") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.join.member", self._orders.model_dump_json()],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def kill(self) -> bool:
        """Kill it with -9; return whether that was in the midst of a transaction."""
        assert self.alive, f"it has ended by itself; {self.report()}"
        self._process.kill()
        self._clear_up()
        return self._in_transaction

    def freeze(self, seconds: float) -> None:
        """Let it stand still for a while, and then go on as if no time had passed."""
        process = self._process
        process.send_signal(signal.SIGSTOP)
        thaw = threading.Timer(seconds, process.send_signal, [signal.SIGCONT])
        thaw.daemon = True
        thaw.start()

    def stop(self) -> None:
        """End it in good order."""
        self._process.terminate()
        self._clear_up()
        assert self._process.returncode == 0, self.report()

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def dispose(self) -> None:
        """End it somehow, if it runs."""
        self._process.kill()
        self._clear_up()

    def report(self) -> str:
        """Say what is known of it."""
        return (
            f"{self.begun} transactions begun, {len(self.errors)} failed steps, the last ones: {self.errors[-3:]}; "
            f"standard error: {self._complaints.read_text()[-3_000:]}"
        )

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._heard:
                self._in_transaction = line == "writing\n"
                self.begun += self._in_transaction
                if line.startswith("LogError"):
                    self.errors.append(line.strip())
                self._heard.notify_all()

    def _clear_up(self) -> None:
        self._process.wait(PATIENCE_S)
        self._listener.join()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
