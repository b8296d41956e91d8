"""Leeway's ground floor: records, features, exploration, oracles, policies, serving and the client."""

__version__ = "0.1.0"
