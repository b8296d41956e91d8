"""The table of the change detectors: a new one is one file and one line here."""

from __future__ import annotations

from monitoring.adwin import ADWIN
from monitoring.bocpd import BOCPD
from monitoring.detector import Detector
from monitoring.page_hinkley import PageHinkley
from monitoring.rbocpd import RBOCPD

#: By ``kind``. The last two, which are there to compare with, need the extra ``drift-peers`` and cannot be saved.
DETECTORS: dict[str, type[Detector]] = {kind.kind: kind for kind in (RBOCPD, BOCPD, ADWIN, PageHinkley)}
