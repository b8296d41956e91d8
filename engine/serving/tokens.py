"""Who may call: tokens and client certificates, each with what it may do.

A token is 32 random bytes, so nobody finds it from its SHA-256: the slow, salted hashes that passwords need would cost
milliseconds a call and add nothing. The file holds the hashes alone.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import AwareDatetime, Field, ValidationError, model_validator

from engine.config import Model, Name
from engine.errors import ConfigError
from engine.plain_yaml import read_yaml

Scope = Literal["decide", "report", "read", "admin"]
#: Says what a leaked text is, to people and to scanners of repositories.
PREFIX = "leeway_"
_BYTES = 32
_ALGORITHM = "sha256:"
CallerName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, and what they may do.

    Attributes
    ----------
    name
        As the file has it, with what it is: ``token shop``, ``certificate batch``.
    scopes
        ``admin`` comes with ``read``.
    points
        Names of decision points and recommenders; ``None``: all.
    expires_ms
        When the entry ends to count, milliseconds since 1970; ``None``: never.
    """

    name: str
    scopes: frozenset[str]
    points: frozenset[str] | None
    expires_ms: int | None


class _Entry(Model):
    name: CallerName
    scopes: list[Scope] = Field(min_length=1)
    points: Literal["all"] | Annotated[list[Name], Field(min_length=1)]
    expires: AwareDatetime | None = None

    def caller(self, kind: str) -> Caller:
        scopes = {*self.scopes, "read"} if "admin" in self.scopes else set(self.scopes)
        return Caller(
            f"{kind} {self.name}",
            frozenset(scopes),
            None if self.points == "all" else frozenset(self.points),
            None if self.expires is None else round(self.expires.timestamp() * 1_000),
        )


class TokenEntry(_Entry):
    """A token, by its hash."""

    hash: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")


class CertificateEntry(_Entry):
    """A client certificate, by its common name or one of its subject alternative names."""

    identity: str = Field(min_length=1)


class _File(Model):
    tokens: list[TokenEntry] = Field([])
    certificates: list[CertificateEntry] = Field([])

    @model_validator(mode="after")
    def _check(self) -> _File:
        entries = [*self.tokens, *self.certificates]
        for what, values in {
            "name": [entry.name for entry in entries],
            "hash": [entry.hash for entry in self.tokens],
            "identity": [entry.identity for entry in self.certificates],
        }.items():
            twice = next((value for value in values if values.count(value) > 1), None)
            if twice is not None:
                raise ValueError(f"{what} {twice!r} stands twice; it would not be clear who calls")
        return self


class Access:
    """Everybody who may call: one reading of the file, which never changes.

    Parameters
    ----------
    file
        What stands in it.
    """

    def __init__(self, file: _File) -> None:
        self._tokens = {
            bytes.fromhex(entry.hash.removeprefix(_ALGORITHM)): entry.caller("token") for entry in file.tokens
        }
        self._verified: dict[bytes, Caller] = {}  # no more than there are tokens
        self._certificates = {entry.identity: entry.caller("certificate") for entry in file.certificates}

    @property
    def callers(self) -> list[Caller]:
        """All of them, tokens first."""
        return [*self._tokens.values(), *self._certificates.values()]

    @property
    def knows_certificates(self) -> bool:
        """Whether any caller is known by its certificate."""
        return bool(self._certificates)

    def by_token(self, token: str) -> Caller | None:
        """Return whose token this is.

        Digests are compared, in constant time, and all of them: how long it takes tells neither how much of a guess is
        right nor which entry it is near to. One that was right before is found by its digest at once.
        """
        digest = hashlib.sha256(token.encode(errors="replace")).digest()
        found = self._verified.get(digest)
        if found is None:
            for known, caller in self._tokens.items():
                if hmac.compare_digest(known, digest):
                    found = caller
            if found is not None:
                self._verified[digest] = found
        return found

    def by_certificate(self, identities: Iterable[str]) -> Caller | None:
        """Return who has a certificate with one of these names; it was signed by the CA of the clients."""
        return next((self._certificates[name] for name in identities if name in self._certificates), None)


def new_token() -> tuple[str, str]:
    """Return a new token, and its hash as the file has it."""
    token = PREFIX + secrets.token_urlsafe(_BYTES)
    return token, _ALGORITHM + hashlib.sha256(token.encode()).hexdigest()


def read_access(path: Path) -> Access:
    """Read the file of those who may call; raises ``ConfigError`` naming path, entry and remedy."""
    try:
        if path.stat().st_mode & 0o002:
            raise ConfigError(f"{path}: anybody on this machine may write it, and so let in whom they like; chmod o-w")
        found, _ = read_yaml(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); make entries with: leeway token create") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not readable as YAML or JSON: {error}") from error
    try:
        return Access(_File.model_validate(found))
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or 'file'}: {problem['msg'].removeprefix('Value error, ')}"
            for problem in error.errors(include_url=False, include_input=False)
        )
        raise ConfigError(f"{path}: {problems}") from None
