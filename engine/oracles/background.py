"""Work of a learner that takes long: begun now, done by somebody else, and taken over when it is ready."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from engine.oracles.nested import integers

T = TypeVar("T")


class Worker(Protocol):
    """Does work for learners, such as an executor of ``concurrent.futures``."""

    def submit(self, work: Callable[[], T], /) -> Future[T]:
        """Begin a piece of work, and return what will hold its result or its error."""


class AtOnce:
    """The worker that has done everything when it returns: for simulations, training and tests.

    >>> AtOnce().submit(lambda: 6 * 7).result()
    42
    """

    def submit(self, work: Callable[[], T], /) -> Future[T]:
        """Do the work."""
        future: Future[T] = Future()
        try:
            future.set_result(work())
        except Exception as error:
            future.set_exception(error)
        return future


AT_ONCE = AtOnce()


class Errand(Generic[T]):
    """A worker, and the one piece of work that it does for a learner at a time, if any.

    Attributes
    ----------
    worker : Worker
        Who does the next one.
    at : int or None
        The number of feedbacks when the one that is under way was begun: what it knows.
    """

    def __init__(self) -> None:
        self.worker: Worker = AT_ONCE
        self.at: int | None = None
        self._future: Future[T] | None = None

    @property
    def owed(self) -> bool:
        """Whether it is still to be sent: a file says that it was under way, or it has ended with an error."""
        return self.at is not None and self._future is None

    @property
    def ready(self) -> bool:
        """Whether it has come to an end."""
        return self._future is not None and self._future.done()

    def owe(self, at: int) -> None:
        """Take note that work which knows ``at`` feedbacks is to be sent."""
        self.at = at

    def send(self, at: int, work: Callable[[], T]) -> None:
        """Begin it."""
        self.at = at
        self._future = self.worker.submit(work)

    def take(self) -> T:
        """Wait for it and return its result; raises its error, and then it is owed again."""
        if self._future is None:
            raise ValueError("no work is under way")
        future, self._future = self._future, None
        result = future.result()
        self.at = None
        return result

    def array(self) -> NDArray[np.generic]:
        """Return what files hold: ``at``, if work is under way."""
        return np.array([] if self.at is None else [self.at], dtype=np.int64)

    def owe_array(self, array: NDArray[np.generic], learned: int, kept: int) -> None:
        """Owe what a file says; raises ``ValueError`` where it does not fit the rows that are kept."""
        begun = integers(array, len(array))
        if len(begun) > 1 or any(not learned - kept < at <= learned for at in begun):
            raise ValueError(f"work begun after {begun} of {learned} feedbacks does not fit {kept} kept rows")
        for at in begun:
            self.owe(at)


@runtime_checkable
class BackgroundLearner(Protocol):
    """A learner some of whose work takes long, and which goes on to learn while a worker does it.

    What the work gives depends on the feedback up to the moment when it was begun, and on nothing that happens
    meanwhile. With ``AT_ONCE``, which every learner begins with, that moment depends on the number of feedbacks alone.
    """

    def work_in(self, worker: Worker) -> None:
        """Let a worker do what takes long from now on, beginning with what a file says was under way."""

    def settle(self) -> bool:
        """Take over what is ready, and say whether anything was; raises the error with which the work ended."""


class Rebuilt(ABC, Generic[T]):
    """What learners have in common that are now and then built anew: a ``BackgroundLearner`` but for what is built."""

    def __init__(self) -> None:
        self._errand: Errand[T] = Errand()

    def work_in(self, worker: Worker) -> None:
        """Let a worker build from now on; see ``BackgroundLearner``."""
        self._errand.worker = worker

    def settle(self) -> bool:
        """Let what is ready take over; see ``BackgroundLearner``."""
        if self._errand.at is not None and self._errand.owed:
            self._send(self._errand.at)
        if not self._errand.ready:
            return False
        self._take_over()
        return True

    @property
    def _building(self) -> bool:
        return self._errand.at is not None

    @abstractmethod
    def _send(self, at: int) -> None:
        """Have it built of the rows that there were after ``at`` feedbacks."""

    @abstractmethod
    def _take_over(self) -> None:
        """Let what is being built take over once it is there; begin the next one if that is due."""
