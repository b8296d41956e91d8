"""The threads that answer calls, in the order that :class:`~engine.serving.load.Load` gives them."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

import grpc
from google.protobuf.descriptor import ServiceDescriptor

from engine.config import ServingConfig
from engine.errors import DeadlinePassed, LeewayError, Overloaded
from engine.serving.early_refusal import EarlyRefusal
from engine.serving.later import Later
from engine.serving.load import Call, Load, Rank, ends_s
from engine.serving.refusing import refuse
from engine.serving.seams import Observer
from engine.serving.turns import Turns

if TYPE_CHECKING:
    from engine.serving.polled.call import PolledCall

S = TypeVar("S")
#: Threads that refuse: grpcio ends a call only after its message has come, and some callers let it wait for that.
_REFUSING = 4
#: The method whose calls are shown ahead.
DECIDE = "Decide"


class WholeCall(Protocol):
    """A call whose message has come."""

    @property
    def deadline(self) -> float:
        """When its caller gives up, in seconds since 1970; infinite: it did not say."""

    def read(self) -> Any:
        """Return the request."""

    def run(self) -> Later | None:
        """Answer it."""


class _Lane(ThreadPoolExecutor):
    """What grpcio takes for a pool of threads: the way into the one there is, for one method."""

    def __init__(self, pool: CallPool, rank: Rank, method: str) -> None:
        super().__init__(1)  # which never starts a thread
        self._pool = pool
        self._rank = rank
        self._method = method
        #: Where a server asks that refuses by the headers of a call.
        self.early_refusal = pool.early_refusal(rank, method)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Let a call wait for its turn."""
        return self._pool.submit(partial(fn, *args, **kwargs), self._rank, self._method, _deadline(args))

    def enter(self, call: WholeCall) -> None:
        """Let a call wait for its turn, of a server that has its message."""
        self._pool.submit(call.run, self._rank, self._method, call.deadline, call.read)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls: grpcio ends the pool that it was given."""
        self._pool.shutdown(wait=wait)


class _PolledLane(_Lane):
    """The way in of a server that is polled."""

    def arrive(self, call: PolledCall) -> None:
        """Refuse a call, or let it wait for its turn once its message is there."""
        early = self.early_refusal
        refused = None if early.calm else early.of(call.timeout_s)
        if refused is not None:
            call.refuse(refused)
        else:
            call.receive(partial(self.enter, call))


class CallPool:
    """Threads that answer calls, and a few that refuse them.

    Parameters
    ----------
    config
        Threads, and the deadline of callers that set none.
    load
        Which call is next, and which is refused.
    observer
        Is told of those.
    turns
        Where calls are taken if not on threads; only those that would wait for the log are then answered on threads.
    later
        Methods whose wait for the log needs no thread there.
    prepare
        Where calls are taken in turns, is shown the requests of decisions before theirs come.
    polled
        Whether it is a :class:`~engine.serving.polled.server.PolledServer` that takes the calls.
    """

    def __init__(
        self,
        config: ServingConfig,
        load: Load,
        observer: Observer,
        turns: Turns | None = None,
        later: Collection[str] = (),
        *,
        prepare: Callable[[Sequence[Any]], None] | None = None,
        polled: bool = False,
    ) -> None:
        self._default_s = config.default_deadline / 1_000.0
        self._load = load
        self._observer = observer
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(config.workers, thread_name_prefix="decide")
        self._turns: Executor = turns or self._threads
        if turns is not None and prepare is not None:
            turns.ahead = partial(self._ahead, prepare)
        #: Answered where they are taken.
        self._at_once = None if turns is None or config.decides_at_once else frozenset(later)
        self._waits = turns is None
        self._polled = polled
        # Whoever is refused waits for none of those who are answered.
        self._refusing = ThreadPoolExecutor(_REFUSING, thread_name_prefix="refuse")
        self._refused = threading.local()
        # Of calls that are taken next: how many were prepared, and what that took of each. Of the thread that takes.
        self._prepared, self._prepared_s = 0, 0.0

    def lane(self) -> ThreadPoolExecutor:
        """Return the way in for methods that are never refused."""
        return _Lane(self, Rank.ALWAYS, "")

    def early_refusal(self, rank: Rank, method: str) -> EarlyRefusal:
        """Return what says of calls of a method which need not come in."""
        return EarlyRefusal(self._load, self._lock, self._observer, self._default_s, rank, method)

    def front(self, servicer: S, service: ServiceDescriptor) -> S:
        """Return a servicer whose calls come through the pool; streams keep the threads that they have."""
        methods: dict[str, Any] = {}
        for method in service.methods:
            answer = getattr(servicer, method.name)
            methods[method.name] = answer if method.client_streaming else self._admitted(answer, method.name)
        return cast(S, SimpleNamespace(**methods))

    def _admitted(self, answer: Callable[[Any, grpc.ServicerContext], Any], method: str) -> Any:
        refused = self._refused

        def call(request: Any, context: grpc.ServicerContext) -> Any:
            error: LeewayError | None = getattr(refused, "error", None)
            if error is not None:
                refuse(self._observer, method, context, error)
            said = answer(request, context)
            return said.wait() if self._waits and isinstance(said, Later) else said

        # Where grpcio runs the method.
        lane = _PolledLane if self._polled else _Lane
        rank = self._load.rank(method)
        call.experimental_thread_pool = lane(self, rank, method)  # type: ignore[attr-defined]
        return call

    def submit(
        self, run: Callable[[], Any], rank: Rank, method: str, deadline: float, read: Callable[[], Any] | None = None
    ) -> Future[Any]:
        """Let a call wait for its turn, or have one refused; ``read`` returns its request."""
        now_s = time.monotonic()
        threaded = self._at_once is not None and method not in self._at_once
        call = Call(run, rank, method, ends_s(deadline, time.time(), now_s, self._default_s), threaded, read)
        with self._lock:
            refused = self._load.enter(call, now_s)
        ended = None if refused is None else self._refusing.submit(self._refuse, *refused)
        if ended is not None and refused is not None and refused[0] is call:
            return ended
        # Whichever call is next then.
        return self._threads.submit(self._work, threaded=True) if threaded else self._turns.submit(self._work)

    def _ahead(self, prepare: Callable[[Sequence[Any]], None], most: int) -> None:
        with self._lock:
            calls = self._load.ahead(most)
        began_s = time.monotonic()
        try:
            prepare([call.read() for call in calls if call.read is not None and call.method == DECIDE])
        finally:
            self._prepared, self._prepared_s = most, (time.monotonic() - began_s) / most

    def _work(self, *, threaded: bool = False) -> None:
        before_s = 0.0
        if not threaded and self._prepared:
            self._prepared -= 1
            before_s = self._prepared_s
        with self._lock:
            call = self._load.take(time.monotonic(), threaded=threaded)
        if call is None:
            return  # its place was given to another, which has a turn of its own
        self._answer(call, before_s, counts=not threaded)

    def _answer(self, call: Call, before_s: float, *, counts: bool) -> None:
        """Answer a call, or refuse it.

        ``counts``: the time that it takes, ``before_s`` of it before now, is one of the turns of those that wait.
        """
        began_s = time.monotonic()
        said: Any = None
        try:
            if began_s > call.ends_s and call.rank is not Rank.ALWAYS:
                self._refuse(call, DeadlinePassed("the deadline has passed before its turn came; nothing was done"))
            else:
                said = call.run()
        finally:
            took_s = before_s + time.monotonic() - began_s if counts else None
            if isinstance(said, Later):
                said.on_end(lambda: self._ended(took_s))
            else:
                self._ended(took_s)

    def _ended(self, took_s: float | None) -> None:
        with self._lock:
            self._load.ended(took_s)

    def _refuse(self, call: Call, error: Overloaded | DeadlinePassed) -> None:
        self._observer.refused(call.method, error.reason if isinstance(error, Overloaded) else "too_late")
        self._refused.error = error
        try:
            call.run()
        finally:
            self._refused.error = None

    def shutdown(self, *, wait: bool) -> None:
        """Take no more calls; those that wait are answered."""
        self._turns.shutdown(wait=wait)
        self._threads.shutdown(wait=wait)
        self._refusing.shutdown(wait=wait)


def _deadline(args: tuple[Any, ...]) -> float:
    """Return the deadline of a call in seconds since 1970, from what grpcio hands to its pool.

    It says so officially only once the call has its thread. Where it hands over something else, the deadline is looked
    at then, and a call is refused later than it could be (a test would tell).
    """
    for part in args:
        details = getattr(part, "call_details", None)
        if details is not None:
            return float(getattr(details, "deadline", math.inf))
    return math.inf
