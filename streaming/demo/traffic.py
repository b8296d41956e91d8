"""The client of the demo: asks for decisions at a steady rate and reports outcomes as the world lets them through."""

from __future__ import annotations

import heapq
import threading
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

import grpc

from engine.api.leeway.v1.service_pb2 import ReportRequest
from engine.client import Decided, LeewayClient, Refused
from engine.records import new_id
from streaming.demo.world import Visit, World
from streaming.serve import now_ms

#: Threads that ask at once.
CALLERS = 8
#: An outcome that is meant to be late is sent this long after its decision.
LATE_S = 2.0
#: Every so many visits, an outcome is sent for a decision that nobody made.
STRAY_EVERY = 500


class Traffic:
    """Streams the world's visits through a server, over gRPC.

    Parameters
    ----------
    target
        ``host:port`` of the server.
    point
        The decision point.
    world
        Gives visits, and knows what was right.
    retry_s
        How long to go on trying when the server is away.
    """

    def __init__(self, target: str, point: str, world: World, retry_s: float = 10.0) -> None:
        self._client = LeewayClient(target, retry_s=retry_s)
        self._point = point
        self._world = world
        self._actions = world.table.actions
        self._due: list[tuple[float, str, ReportRequest]] = []
        self._lock = threading.Lock()
        self._reporting = threading.Event()
        self._pool = ThreadPoolExecutor(CALLERS, thread_name_prefix="caller")
        self._reporter = threading.Thread(target=self._report, name="reporter", daemon=True)
        self.acknowledged: dict[str, int] = {}
        self.rewards: deque[float] = deque(maxlen=500)
        self.asked = 0
        self.errors: list[str] = []
        self.change_ms: int | None = None
        self._reporter.start()

    def run(self, count: int, rate: float) -> None:
        """Make ``count`` visits at about ``rate`` a second; returns when all are answered."""
        pending: deque[Future[None]] = deque()
        start = time.monotonic()
        for i in range(count):
            if self.asked == self._world.change_at:
                self.change_ms = now_ms()
            pending.append(self._pool.submit(self._visit, self.asked, self._world.visit(self.asked)))
            self.asked += 1
            # Never far ahead of the answers: a slow server slows the client, as a product's would.
            while len(pending) > 4 * CALLERS or (pending and pending[0].done()):
                pending.popleft().result()
            time.sleep(max(0.0, start + (i + 1) / rate - time.monotonic()))
        for future in pending:
            future.result()

    def _visit(self, number: int, visit: Visit) -> None:
        decision_id = new_id()
        try:
            decided: Decided = self._client.decide(
                self._point, self._world.table.rows[visit.row], self._actions, decision_id
            )
        except grpc.RpcError as error:
            self.errors.append(f"decision {decision_id}: {error.details()}")
            return
        reward = float(decided.action == visit.right)
        with self._lock:
            self.acknowledged[decided.decision_id] = number
            self.rewards.append(reward)
            fate = self._world.fate()
            now = time.monotonic()
            if not fate.lost:
                delay = LATE_S if fate.late else fate.delay_s
                self._queue(now + delay, decided.decision_id, reward, again_at=fate.again, later=fate.second_delay_s)
            if number % STRAY_EVERY == STRAY_EVERY - 1:
                self._queue(now + fate.delay_s, f"stray-{new_id()}", 1.0)

    def _queue(self, at: float, decision_id: str, value: float, *, again_at: bool = False, later: float = 0.0) -> None:
        request = ReportRequest(decision_id=decision_id, outcome_id=new_id(), value=value, decision_point=self._point)
        heapq.heappush(self._due, (at, request.outcome_id, request))
        if again_at:
            heapq.heappush(self._due, (at + later, f"{request.outcome_id}+", request))

    def _report(self) -> None:
        while not self._reporting.wait(0.02):
            self._send(time.monotonic())

    def _send(self, until: float) -> None:
        batch: list[ReportRequest] = []
        with self._lock:
            while self._due and self._due[0][0] <= until:
                request = heapq.heappop(self._due)[2]
                if not request.time_ms:
                    request.time_ms = now_ms()  # when it happened; a second sending does not change it
                batch.append(request)
        if not batch:
            return
        try:
            answers = self._client.report_batch(batch)
        except grpc.RpcError as error:
            self.errors.append(f"{len(batch)} outcomes: {error.details()}")
            return
        self.errors += [f"outcome: {answer.message}" for answer in answers if isinstance(answer, Refused)]

    def finish(self) -> None:
        """Send every outcome that is still on its way, and close."""
        while self._due:
            time.sleep(0.05)
        self._reporting.set()
        self._reporter.join()
        self._pool.shutdown()
        self._client.close()
