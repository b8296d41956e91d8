"""What can be said about who may use the server, and how much may be asked of it at once."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from engine.config.base import Model


class TLSConfig(Model):
    """Files in PEM form; they are read again when they change, for connections from then on."""

    certificate: Path = Field(description="the server's certificate, then those that signed it")
    key: Path = Field(description="its private key, not encrypted")
    client_ca: Path | None = Field(None, description="who signs the certificates that clients must then have")

    def beside(self, directory: Path) -> TLSConfig:
        """Return it with paths that were relative to a directory."""
        client_ca = None if self.client_ca is None else directory / self.client_ca
        return TLSConfig(certificate=directory / self.certificate, key=directory / self.key, client_ca=client_ca)


class LimitsConfig(Model):
    """Most of what one request may carry; a decision point, or a recommender, may allow less."""

    actions: int = Field(100_000, ge=1, description="actions, candidates or excluded items")
    features: int = Field(4_096, ge=1, description="features of a context, of a user, or of one action")
    list_length: int = Field(4_096, ge=1, description="entries of one feature that is a list")
    text_length: int = Field(4_096, ge=1, description="characters of a text")
    id_length: int = Field(
        256, ge=32, le=4_096, description="characters of an id or a name; of decisions and outcomes never over 256"
    )
    batch: int = Field(10_000, ge=1, description="requests in one batch")
