"""How a command reaches the server: options for TLS and the token."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from engine.errors import ConfigError

if TYPE_CHECKING:
    import grpc

R = TypeVar("R")
TOKEN = "LEEWAY_TOKEN"


@dataclass(frozen=True)
class Reach:
    """What the options said."""

    ca: Path | None
    certificate: Path | None
    key: Path | None
    server_name: str | None
    token_file: Path | None

    def channel(self, target: str, *, tls: bool) -> grpc.Channel:
        """Return a channel; ``tls``: the configuration says that the server has TLS.

        Raises ``ConfigError`` where a file cannot be read.
        """
        # gRPC takes its time to import, and most commands do without it.
        from engine.channel import open_channel, tls_credentials

        wanted = tls or self.ca is not None or self.certificate is not None
        credentials = tls_credentials(self.ca, self.certificate, self.key) if wanted else None
        options = [("grpc.ssl_target_name_override", self.server_name)] if self.server_name else []
        return open_channel(target, options, credentials=credentials, token=self._token())

    def _token(self) -> str | None:
        if self.token_file is None:
            return os.environ.get(TOKEN)
        try:
            return self.token_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"--token-file {self.token_file}: cannot be read ({error})") from error


def server_options(function: Callable[..., R]) -> Callable[..., R]:
    """Add the options, and give the command what they say as ``reach``."""
    file = click.Path(path_type=Path, dir_okay=False)

    @click.option("--ca", type=file, help="Who signed the server's certificate, as PEM; default: whom gRPC trusts.")
    @click.option("--certificate", type=file, help="Of this client, as PEM, where the server asks for one.")
    @click.option("--key", type=file, help="Of --certificate.")
    @click.option("--server-name", help="The name in the server's certificate, where it is not that of --target.")
    @click.option("--token-file", type=file, help=f"Has the token and nothing else; default: ${TOKEN}.")
    @wraps(function)
    def collected(
        *args: Any,
        ca: Path | None,
        certificate: Path | None,
        key: Path | None,
        server_name: str | None,
        token_file: Path | None,
        **others: Any,
    ) -> R:
        return function(*args, reach=Reach(ca, certificate, key, server_name, token_file), **others)

    return collected
