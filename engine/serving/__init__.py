"""Serving decisions: a core that knows no transport, and its gRPC face."""
