"""The way from an outbox to the engine: in batches, again after what passes, never again what was refused."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import grpc

from engine.client.messages import Refused
from engine.client.outbox import Outbox
from engine.client.retries import judged

logger = logging.getLogger(__name__)

Batch = list[tuple[str, bytes]]
#: Well below the least that servers take by default (4 MiB).
MOST_BYTES = 1_048_576
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0


class Delivery:
    """Decides what is sent next, and what becomes of it.

    Parameters
    ----------
    outbox
        What waits.
    batch
        How many are sent at once.
    on_undelivered
        Is told of a message that will never be delivered, and why.
    chance
        Gives a number from 0 to 1 for each pause.
    """

    def __init__(
        self,
        outbox: Outbox,
        batch: int,
        on_undelivered: Callable[[bytes, str], None],
        chance: Callable[[], float],
    ) -> None:
        self.outbox = outbox
        self.full_batch = batch
        self._size = batch
        self._on_undelivered = on_undelivered
        self._chance = chance
        self._failed = 0
        #: Why the last attempt brought nothing on; empty: it did.
        self.trouble = ""

    def next(self) -> Batch:
        """Return what to send now; empty where nothing waits."""
        return self.outbox.oldest(self._size, MOST_BYTES)

    def answered(self, batch: Batch, answers: Sequence[Refused | None]) -> float:
        """Take the answers to a batch, ``None`` for what was taken; return how many seconds to pause."""
        kept = [answer for answer in answers if answer is not None and answer.retry_after_s is not None]
        done = [
            (key, data, answer)
            for (key, data), answer in zip(batch, answers, strict=True)
            if answer is None or answer.retry_after_s is None
        ]
        self._finish([key for key, _, _ in done])
        for _, data, answer in done:
            if answer is not None:
                self._on_undelivered(data, answer.message)
        self._size = self.full_batch
        if not kept:
            self._failed, self.trouble = 0, ""
            return 0.0
        return self._pause_s(kept[0].message, max(answer.retry_after_s or 0.0 for answer in kept))

    def failed(self, batch: Batch, error: grpc.RpcError) -> float:
        """Take the failure of a whole call; return how many seconds to pause.

        What is too large is sent in smaller batches, and given up where it is alone. Whatever else a server says of a
        call it does not say of its items: they wait.
        """
        may, hint_s = judged(error)
        words = f"{error.code().name}: {error.details()}"
        if not may and error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
            if len(batch) > 1:
                self._size = len(batch) // 2
                return 0.0
            self._finish([key for key, _ in batch])
            self._on_undelivered(batch[0][1], words)
            return 0.0
        return self._pause_s(words, hint_s)

    def _finish(self, keys: list[str]) -> None:
        if keys:
            self.outbox.drop(keys)

    def _pause_s(self, trouble: str, hint_s: float) -> float:
        ceiling = min(_FIRST_PAUSE_S * 2.0**self._failed, _LONGEST_PAUSE_S)
        if not self._failed:
            logger.warning("%d messages wait, and are sent again: %s", len(self.outbox), trouble)
        self._failed = min(self._failed + 1, 10)
        self.trouble = trouble
        return max(ceiling * (1.0 + self._chance()) / 2.0, hint_s)
