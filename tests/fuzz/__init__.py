"""Damaged and hostile bytes, for everything that is read from outside."""
