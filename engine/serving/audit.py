"""The audit log: a JSON line for each call of the admin service, whether it was answered or refused."""

from __future__ import annotations

import json
import logging
import os
from datetime import UTC, datetime
from pathlib import Path

logger = logging.getLogger(__name__)

#: Characters of what a caller has sent.
_LONGEST = 256


class AuditLog:
    """Appends a line for each call, in one write: several processes may share a file, and it may be moved away.

    Parameters
    ----------
    path
        The file, made if need be, for its owner alone; ``None``: lines go to the process's log. So do those that the
        file does not take.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def note(self, now_ms: int, *, who: str, peer: str, call: str, point: str, verdict: str) -> None:
        """Write a line.

        Parameters
        ----------
        now_ms
            When the call ended.
        who
            Name of the token or certificate that the caller was known by; empty where it was not.
        peer
            Its address, and the names in its certificate.
        call, point
            What it asked; the point is empty where it named none.
        verdict
            Status code of the answer: ``OK``, ``UNAUTHENTICATED``, ``PERMISSION_DENIED``, ...
        """
        time = datetime.fromtimestamp(now_ms / 1_000, UTC).isoformat(timespec="milliseconds")
        fields = {"who": who, "peer": peer, "call": call, "point": point, "verdict": verdict}
        line = json.dumps({"time": time, **{name: value[:_LONGEST] for name, value in fields.items()}})
        if self._path is None:
            logger.info("%s", line)
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(file, f"{line}\n".encode())
            finally:
                os.close(file)
        except OSError as error:
            logger.error("serving.audit_log: %s does not take %s (%s)", self._path, line, error.strerror)
