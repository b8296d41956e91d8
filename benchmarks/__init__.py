"""Benchmarks: each a module run as ``python -m benchmarks.NAME --json FILE [--quick]``.

Each compares with a peer or a limit in the same run, since absolute figures move with the machine.
"""
