"""How much each client may ask for: a token bucket each, and a bounded number of them."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from engine.config import RateConfig
from engine.errors import Overloaded
from engine.serving.seams import Observer

#: Whoever comes while every bucket is in use.
_REST = "others"


class ClientRates:
    """Token buckets by client. A bucket that is full again is as good as none, and forgotten first.

    Parameters
    ----------
    config
        Their rate and size, and how many there are.
    observer
        Is told of calls that are refused.
    clock
        Seconds.

    Examples
    --------
    >>> now = [0.0]
    >>> rates = ClientRates(RateConfig(per_second=2.0, burst=3), clock=lambda: now[0])
    >>> [rates.wait_s("shop") for _ in range(4)]
    [0.0, 0.0, 0.0, 0.5]
    >>> now[0] = 0.5
    >>> rates.wait_s("shop"), rates.wait_s("shop")
    (0.0, 0.5)
    """

    def __init__(
        self, config: RateConfig, observer: Observer | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._config = config
        self._observer = observer
        self._clock = clock
        self._lock = threading.Lock()
        #: Tokens, and when they were counted; who came last stands last.
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str, method: str, request: Any) -> None:
        """Take what a request costs from a client's bucket; raises ``Overloaded`` where there is not enough."""
        wait_s = self.wait_s(client, cost(method, request))
        if not wait_s:
            return
        if self._observer is not None:
            self._observer.refused(method, "rate_limited")
        raise Overloaded(
            "rate_limited",
            f"{client} asks for more than {self._config.per_second:g} requests a second "
            "(serving.overload.rate.per_second); come again later",
            wait_s,
        )

    def wait_s(self, client: str, tokens: int = 1) -> float:
        """Take tokens and return 0; or take none, and return in how many seconds there are enough.

        More than a bucket holds are given when it is full, and it owes the rest.
        """
        rate, burst = self._config.per_second, self._config.burst
        needed = min(tokens, burst)
        with self._lock:
            now = self._clock()
            key = client if client in self._buckets or self._has_room(now) else _REST
            level, counted = self._buckets.get(key, (float(burst), now))
            level = min(level + rate * (now - counted), float(burst))
            enough = level >= needed
            self._buckets[key] = (level - tokens if enough else level, now)
            self._buckets.move_to_end(key)
        return 0.0 if enough else (needed - level) / rate

    def _has_room(self, now: float) -> bool:
        """Return whether one more client can be told apart, forgetting one whose bucket is full."""
        if len(self._buckets) < self._config.clients:
            return True
        client, (level, counted) = next(iter(self._buckets.items()))
        if level + self._config.per_second * (now - counted) < self._config.burst:
            return False
        del self._buckets[client]
        return True


def cost(method: str, request: Any) -> int:
    """Return how many requests a message is; at least one."""
    match method:
        case "DecideBatch" | "ReportBatch":
            return max(len(request.requests), 1)
        case "Record":
            return max(len(request.decisions), 1)
        case _:
            return 1


def peer_name(peer: str) -> str:
    """Return the address of a peer as gRPC writes it, without its port: connections of one client are one client.

    >>> peer_name("ipv4:10.0.0.7:51234"), peer_name("ipv6:%5B::1%5D:51234"), peer_name("unix:")
    ('ipv4:10.0.0.7', 'ipv6:%5B::1%5D', 'unix:')
    """
    return peer.rpartition(":")[0] if peer.startswith(("ipv4:", "ipv6:")) else peer
