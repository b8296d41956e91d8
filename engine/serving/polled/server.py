"""grpcio's server, with a loop that answers small calls itself.

By itself grpcio gives a call a thread when its headers have come. The thread asks for the message, sleeps, and is woken
by the thread that polls: of a small call that is what costs most (ADR 16). Here the thread that polls asks for the
message at once, and the call waits for its turn when it is whole.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import MethodType
from typing import Any

import grpc
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from engine.serving.later import LOOK_S, Overdue
from engine.serving.polled.call import PolledCall
from engine.serving.polled.inside import cygrpc, server
from engine.serving.turns import Turns

logger = logging.getLogger(__name__)

#: Events that are taken in a row while calls wait for their turn: each call has four.
_EVENTS = 256
#: How long it sleeps where nothing happens.
_SLEEP_S = 1.0

#: As grpcio says it.
_NO_ROOM = rpc_status.to_status(
    Status(code=grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], message="Concurrent RPC limit exceeded!")
)


class PolledServer(server._Server):  # type: ignore[misc]  # of no stub
    """``grpc.server`` with a loop of its own: it takes what has happened, and then the calls whose turn it is.

    Methods that name a pool which has ``arrive`` are answered there; all others as by ``grpc.server``.

    Parameters
    ----------
    threads
        Where methods run that name no pool of their own.
    turns
        What the pools of methods have put here runs in the thread that polls.
    options
        Of the channel.
    most
        Calls that may be there at a time, those whose message has not come among them.

    Attributes
    ----------
    overdue : Overdue
        Answers that wait for the log.
    ending : Executor
        One thread, where they are ended once the log has them.
    """

    def __init__(
        self, threads: ThreadPoolExecutor, turns: Turns, options: Sequence[tuple[str, int]], most: int
    ) -> None:
        super().__init__(threads, (), (), options, most, None, False)
        self._turns = turns
        self._most = most
        self._at_once: dict[str, Any] = {}
        self._poller = 0
        self._out: list[Callable[[], object]] = []
        self.overdue = Overdue()
        self.ending = ThreadPoolExecutor(1, thread_name_prefix="ending")

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Serve the methods of a service."""
        super().add_registered_method_handlers(service, handlers)
        for name, handler in handlers.items():
            pool = getattr(handler.unary_unary, "experimental_thread_pool", None)
            arrive = getattr(pool, "arrive", None)
            if arrive is not None:
                self._at_once[f"/{service}/{name}"] = (handler, arrive)

    def name_of(self, handler: Any) -> str:
        """Return the full name of the method that a handler answers."""
        return next((name for name, its in self._at_once.items() if its[0] is handler), "a call")

    def start(self) -> None:
        """Serve."""
        state = self._state
        with state.lock:
            state.server.start()
            state.stage = server._ServerStage.STARTED
            for method in state.registered_method_handlers:
                server._request_registered_call(state, method)
            server._request_call(state)
        threading.Thread(target=self._serve, name="polled-server", daemon=True).start()

    def _serve(self) -> None:
        state, queue = self._state, self._state.completion_queue
        at_once = self._at_once
        self._poller = threading.get_ident()
        taken = 0
        while True:
            event = queue.poll(self._until())
            tag = event.tag
            if event.completion_type == cygrpc.CompletionType.queue_timeout:
                taken = _EVENTS
                goes_on = True
            else:
                try:
                    if type(tag) is MethodType:  # of a call that is answered here
                        goes_on = tag(event)
                    elif tag in at_once:
                        goes_on = self._begin(event, tag)
                    else:
                        goes_on = server._process_event_and_continue(state, event)
                except Exception:  # it is of one call: the others go on
                    logger.exception("what has happened to a call could not be handled")
                    goes_on = self._ask_again(tag)
            if not goes_on:
                return
            event = tag = None  # they hold their call, for whose end polling would wait
            taken += 1
            if self.overdue:
                self.overdue.look()
            if taken >= _EVENTS:
                taken = 0
                self._take()

    def _until(self) -> float:
        """Return until when it may be waited for something to happen, in seconds since 1970."""
        if self._turns.waiting or self._out:
            return 0.0
        return time.time() + (LOOK_S if self.overdue else _SLEEP_S)

    def _take(self) -> None:
        """Answer calls whose turn it is.

        Who is answered asks again, and wakes threads of grpcio's core that read it: not before the last is decided.
        """
        self._turns.take()
        out, self._out = self._out, []
        for send in out:
            send()

    def send(self, send: Callable[[], object]) -> None:
        """Have something sent, of the calls of a turn once all of them are answered."""
        if threading.get_ident() == self._poller:
            self._out.append(send)
        else:
            send()

    def _begin(self, event: Any, method: str) -> bool:
        """Take a call, and ask for the next; return whether the server goes on."""
        state = self._state
        with state.lock:
            state.due.remove(method)
            if event.success:
                handler, arrive = self._at_once[method]
                call = PolledCall(event, handler, self)
                state.rpc_states.add(call)
                if len(state.rpc_states) > self._most:
                    call.refuse(_NO_ROOM)
                else:
                    call.attempt(partial(arrive, call))
            if state.stage is server._ServerStage.STARTED:
                server._request_registered_call(state, method)
                return True
            return not server._stop_serving(state)

    def _ask_again(self, tag: Any) -> bool:
        """Ask for the next call where the last has failed before that; return whether the server goes on."""
        state = self._state
        with state.lock:
            if state.stage is not server._ServerStage.STARTED:
                return not server._stop_serving(state)
            if tag not in state.due:
                if tag == server._REQUEST_CALL_TAG:
                    server._request_call(state)
                elif tag in state.registered_method_handlers:
                    server._request_registered_call(state, tag)
            return True

    def forget(self, call: PolledCall) -> bool:
        """Forget a call that is over; return whether the server goes on."""
        state = self._state
        with state.lock:
            state.rpc_states.remove(call)
            return not server._stop_serving(state)
