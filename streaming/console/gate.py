"""What stands before the console: whose browser asks, who is behind it, and what they may do.

A browser sends requests for any page that it shows. So a request must be for a name that the console has (a page of
another name that resolves to this machine reaches nothing), and a change must come from the console's own page.
"""

from __future__ import annotations

import hmac
import http
import secrets
from collections.abc import Callable, Collection
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import Request

from engine.errors import NotAuthenticated, NotPermitted
from engine.serving.guard import bearer, permit, valid
from engine.serving.rules import Rule
from engine.serving.tokens import Access, Caller, Scope

#: Names of this machine to itself.
OWN_NAMES = ("127.0.0.1", "localhost", "::1")
#: The header of a change, with the key that only the console's own page can have read.
CHANGE_HEADER = "x-leeway-change"

#: No script, style or frame but the console's own files, and no text that becomes any of these.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Gate:
    """Lets through who may ask.

    Parameters
    ----------
    names
        Names under which the console is reached, beside those of this machine to itself.
    access
        Gives who may ask now; ``None``: anybody.
    clock
        Milliseconds since 1970.

    Attributes
    ----------
    key : str
        What a change must carry in the header ``CHANGE_HEADER``.
    """

    def __init__(self, names: Collection[str], access: Callable[[], Access] | None, clock: Callable[[], int]) -> None:
        self._names = {name.strip("[]").lower() for name in (*OWN_NAMES, *names)}
        self._access = access
        self._clock = clock
        self.key = secrets.token_urlsafe(32)

    @property
    def guarded(self) -> bool:
        """Whether a token is needed."""
        return self._access is not None

    def check_name(self, request: Request) -> None:
        """Raise ``HTTPException`` where a request is for a name that the console does not have."""
        host = request.headers.get("host", "")
        if _name(f"//{host}") not in self._names:
            raise HTTPException(
                http.HTTPStatus.MISDIRECTED_REQUEST,
                f"the console is not known as {host[:100]!r}; where it is, start it with --name",
            )

    def check_origin(self, request: Request) -> None:
        """Raise ``HTTPException`` where a change does not come from the console's own page."""
        site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
        ours = site in (None, "same-origin") and origin in (None, *_origins(request.headers.get("host", "")))
        known = hmac.compare_digest(request.headers.get(CHANGE_HEADER, "").encode(), self.key.encode())
        if not (ours and known):
            raise HTTPException(
                http.HTTPStatus.FORBIDDEN,
                "a change comes from the console's own page alone; load it again, or use the command line",
            )

    def caller(self, request: Request) -> Caller | None:
        """Return who asks; ``None``: anybody may. Raises ``NotAuthenticated``."""
        if self._access is None:
            return None
        words = request.headers.get("authorization")
        if words is None:
            raise NotAuthenticated("say who you are: enter a token")
        return valid(self._access().by_token(bearer(words)), self._clock())


def permit_scope(caller: Caller | None, scope: Scope, request: Request) -> None:
    """Raise ``NotPermitted`` for who lacks a scope."""
    if caller is not None:
        permit(caller, Rule(scope), request)


def sees(caller: Caller | None, point: str) -> bool:
    """Whether a caller may know of a decision point."""
    return caller is None or caller.points is None or point in caller.points


def permit_point(caller: Caller | None, point: str, known: Collection[str]) -> None:
    """Raise ``NotPermitted`` for a point of others, and ``HTTPException`` for one that is not configured.

    Who is limited to some points is told the same of those that there are not.
    """
    if not sees(caller, point):
        assert caller is not None
        raise NotPermitted(f"{caller.name!r} may not look at {point[:100]!r}")
    if point not in known:
        raise HTTPException(http.HTTPStatus.NOT_FOUND, f"{point[:100]!r} is not configured")


def _name(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None


def _origins(host: str) -> tuple[str, str]:
    """Return the origins of our own page: a proxy may end TLS before us."""
    return f"http://{host}", f"https://{host}"
