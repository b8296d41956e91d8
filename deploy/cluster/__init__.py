"""The whole topology on this machine without containers: ``python -m deploy.cluster``."""
