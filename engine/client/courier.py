"""Who carries an outbox to the engine in the background: a thread, or a task of asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable, Sequence

import grpc

from engine.client.delivery import Batch, Delivery
from engine.client.messages import Refused

logger = logging.getLogger(__name__)

Answers = list[Refused | None]
#: Until a file that could not be written is tried again.
_FILE_PAUSE_S = 1.0


class Courier:
    """A thread that delivers.

    Parameters
    ----------
    delivery
        What, and in which batches.
    send
        Sends a batch and returns the answer to each, ``None`` where it was taken; raises ``grpc.RpcError``.
    linger_s
        How long a batch that is not full waits for more.
    """

    def __init__(self, delivery: Delivery, send: Callable[[Sequence[bytes]], Answers], linger_s: float) -> None:
        self._delivery = delivery
        self._send = send
        self._linger_s = linger_s
        self._condition = threading.Condition()
        self._hurry = 0  # how many wait for the outbox to be empty
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="leeway-client", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Say that something waits."""
        with self._condition:
            self._condition.notify_all()

    def flush(self, timeout_s: float) -> bool:
        """Deliver what waits, without lingering; return whether nothing waits any more."""
        end = time.monotonic() + timeout_s
        with self._condition:
            self._hurry += 1
            self._condition.notify_all()
            try:
                while len(self._delivery.outbox) and (left := end - time.monotonic()) > 0.0:
                    self._condition.wait(left)
            finally:
                self._hurry -= 1
            return not len(self._delivery.outbox)

    def close(self, timeout_s: float) -> bool:
        """Flush, then end; return whether nothing is left."""
        end = time.monotonic() + timeout_s
        self.flush(timeout_s)
        with self._condition:
            self._closed = True
            self._condition.notify_all()
        self._thread.join(max(end - time.monotonic(), 0.0))
        return not len(self._delivery.outbox)

    def _run(self) -> None:
        outbox = self._delivery.outbox
        while True:
            with self._condition:
                while not len(outbox) and not self._closed:
                    self._condition.wait()
                if not self._closed and not self._hurry and len(outbox) < self._delivery.full_batch:
                    self._condition.wait_for(
                        lambda: self._closed or self._hurry or len(outbox) >= self._delivery.full_batch, self._linger_s
                    )
                if self._closed:
                    return
            batch: Batch = []
            try:
                batch = self._delivery.next()
                pause = self._delivery.answered(batch, self._send([data for _, data in batch])) if batch else 0.0
            except grpc.RpcError as error:
                pause = self._delivery.failed(batch, error)
            except sqlite3.Error as error:
                pause = _after(error)
            with self._condition:
                self._condition.notify_all()
                if pause:
                    self._condition.wait_for(lambda: self._closed, pause)


class AsyncCourier:
    """A task that delivers; the parameters are those of :class:`Courier`, with a coroutine to send."""

    def __init__(
        self, delivery: Delivery, send: Callable[[Sequence[bytes]], Awaitable[Answers]], linger_s: float
    ) -> None:
        self._delivery = delivery
        self._send = send
        self._linger_s = linger_s
        self._hurry = 0
        self._something = asyncio.Event()
        self._full = asyncio.Event()
        self._empty = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._run(), name="leeway-client")

    def wake(self) -> None:
        """Say that something waits."""
        self._something.set()
        if len(self._delivery.outbox) >= self._delivery.full_batch:
            self._full.set()

    async def flush(self, timeout_s: float) -> bool:
        """Deliver what waits, without lingering; return whether nothing waits any more."""
        if not len(self._delivery.outbox):
            return True
        self._hurry += 1
        self._empty.clear()
        self._full.set()
        self._something.set()
        try:
            async with asyncio.timeout(timeout_s):
                await self._empty.wait()
        except TimeoutError:
            return False
        finally:
            self._hurry -= 1
        return True

    async def close(self, timeout_s: float) -> bool:
        """Flush, then end; return whether nothing is left."""
        await self.flush(timeout_s)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        return not len(self._delivery.outbox)

    async def _run(self) -> None:
        outbox = self._delivery.outbox
        while True:
            if not len(outbox):
                self._empty.set()
                self._something.clear()
                await self._something.wait()
            if not self._hurry and len(outbox) < self._delivery.full_batch:
                self._full.clear()
                with contextlib.suppress(TimeoutError):  # then what there is goes
                    async with asyncio.timeout(self._linger_s):
                        await self._full.wait()
            batch: Batch = []
            try:
                batch = self._delivery.next()
                pause = self._delivery.answered(batch, await self._send([data for _, data in batch])) if batch else 0.0
            except grpc.RpcError as error:
                pause = self._delivery.failed(batch, error)
            except sqlite3.Error as error:
                pause = _after(error)
            await asyncio.sleep(pause)


def _after(error: sqlite3.Error) -> float:
    """Return the pause after an outbox could not be read or written; what was sent is sent again, and counts once."""
    logger.error("what waits to be delivered cannot be read or marked as delivered: %s", error)
    return _FILE_PAUSE_S
