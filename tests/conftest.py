"""What holds for all tests."""

from __future__ import annotations

from hypothesis import settings

# Examples do not change from run to run, and a slow machine fails nothing.
settings.register_profile("leeway", derandomize=True, deadline=None)
settings.load_profile("leeway")
