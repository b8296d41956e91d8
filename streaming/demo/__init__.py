"""``leeway demo``: the whole loop on real data, as a user's own client would drive it."""

from __future__ import annotations

from streaming.demo.run import DemoSettings, run_demo

__all__ = ["DemoSettings", "run_demo"]
