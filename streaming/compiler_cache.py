"""The directory of compiled loops: what lies there is run, so nobody else should write to it."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path

logger = logging.getLogger(__name__)


def warn_of_open_cache(environment: Mapping[str, str] = os.environ) -> None:
    """Say loudly where others could put code into this process: Numba's index is a pickle, and the rest machine code.

    A volume of one container may be open to all without harm, since nobody else is in there; so it is not refused.
    """
    named = environment.get("NUMBA_CACHE_DIR")
    if not named:
        return
    try:
        status = Path(named).stat()
    except OSError:
        return  # Numba makes it, for this user alone
    if status.st_mode & 0o022 or status.st_uid not in (0, os.getuid()):
        logger.warning(
            "NUMBA_CACHE_DIR: others than this user may write to %s, and what lies there is run by this process; "
            "chmod go-w, or name a directory of the service's own",
            named,
        )
