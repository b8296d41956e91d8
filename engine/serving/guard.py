"""The guard in front of the services: who calls, may they, and for the admin service a line in the audit log."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, TypeVar, cast

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

from engine.errors import NotAuthenticated, NotPermitted, Overloaded
from engine.serving.audit import AuditLog
from engine.serving.rates import ClientRates, peer_name
from engine.serving.refusing import refuse
from engine.serving.rules import RULES, UNSTATED, Rule
from engine.serving.seams import Observer
from engine.serving.tokens import Access, Caller

S = TypeVar("S")
Method = Callable[[Any, grpc.ServicerContext], Any]
_BEARER = "bearer "
#: Where gRPC keeps the names in a client's certificate.
_NAMES = ("x509_common_name", "x509_subject_alternative_name")


def certificate_names(context: grpc.ServicerContext) -> list[str]:
    """Return common name and subject alternative names of the client's certificate; none without one."""
    facts = cast(Mapping[str, Sequence[bytes]], context.auth_context())  # what grpc-stubs says is not so
    return [value.decode(errors="replace") for name in _NAMES for value in facts.get(name, ())]


class Guard:
    """Lets through who may call.

    Parameters
    ----------
    access
        Gives who may call now; ``None``: anybody may call everything.
    observer
        Is told of calls that were refused.
    audit
        Where calls of an audited service are noted.
    clock
        Milliseconds since 1970.
    rates
        How much each may ask for; ``None``: no limit.
    """

    def __init__(
        self,
        access: Callable[[], Access] | None,
        observer: Observer,
        audit: AuditLog,
        clock: Callable[[], int],
        rates: ClientRates | None = None,
    ) -> None:
        self._access = access
        self._observer = observer
        self._audit = audit
        self._clock = clock
        self._rates = rates

    def front(self, servicer: S, service: ServiceDescriptor, *, audited: bool = False, limited: bool = False) -> S:
        """Return a servicer that asks the guard first, then ``servicer``.

        ``audited``: each call is noted. ``limited``: each takes from its client's rate.
        """
        rates = self._rates if limited else None
        if self._access is None and rates is None and not audited:
            return servicer  # nothing stands in the way, and nothing is paid for it
        methods: dict[str, Any] = {}
        for method in service.methods:
            answer = getattr(servicer, method.name)
            if method.client_streaming and RULES.get(method.full_name, UNSTATED).each:
                methods[method.name] = self._guarded_stream(answer, method, rates)
            else:
                methods[method.name] = self._guarded(answer, method, rates, audited=audited)
        return cast(S, SimpleNamespace(**methods))

    def _guarded(self, answer: Method, method: MethodDescriptor, rates: ClientRates | None, *, audited: bool) -> Method:
        rule = RULES.get(method.full_name, UNSTATED)

        def call(request: Any, context: grpc.ServicerContext) -> Any:
            caller: Caller | None = None
            verdict = grpc.StatusCode.UNKNOWN.name  # what gRPC makes of an error that nobody expected
            try:
                try:
                    caller = self._identified(context)
                    self._let(caller, rule, method.name, request, context, rates)
                except (NotAuthenticated, NotPermitted, Overloaded) as error:
                    refuse(self._observer, method.name, context, error)
                reply = answer(request, context)
                if caller is not None and caller.points is not None:
                    rule.narrow(reply, caller.points)
                verdict = grpc.StatusCode.OK.name
                return reply
            except Exception:
                verdict = _code(context) or verdict
                raise
            finally:
                if audited:
                    self._note(method.name, request, context, caller, verdict)

        return call

    def _guarded_stream(self, answer: Any, method: MethodDescriptor, rates: ClientRates | None) -> Any:
        """Guard a stream: each of its requests has to be permitted, and a token to be known as long as they come."""
        rule = RULES[method.full_name]

        def call(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
            refused: list[Exception] = []

            def permitted() -> Iterator[Any]:
                for request in requests:
                    try:
                        self._let(self._identified(context), rule, method.name, request, context, rates)
                    except (NotAuthenticated, NotPermitted, Overloaded) as error:
                        refused.append(error)
                        return
                    yield request

            try:
                self._identified(context)
            except (NotAuthenticated, NotPermitted) as error:
                refuse(self._observer, method.name, context, error)
            yield from answer(permitted(), context)
            if refused:  # after the answers to what came before
                refuse(self._observer, method.name, context, refused[0])

        # Where grpcio runs the method.
        call.experimental_thread_pool = answer.experimental_thread_pool  # type: ignore[attr-defined]
        return call

    def _identified(self, context: grpc.ServicerContext) -> Caller | None:
        """Return who calls; ``None``: it is not asked."""
        return None if self._access is None else self._caller(context, self._access())

    def _let(
        self,
        caller: Caller | None,
        rule: Rule,
        method: str,
        request: Any,
        context: grpc.ServicerContext,
        rates: ClientRates | None,
    ) -> None:
        """Raise ``NotPermitted`` or ``Overloaded`` where a caller may not make a request, or not now."""
        if caller is not None:
            permit(caller, rule, request)
        if rates is not None:
            rates.take(peer_name(context.peer()) if caller is None else caller.name, method, request)

    def _note(
        self, method: str, request: Any, context: grpc.ServicerContext, caller: Caller | None, verdict: str
    ) -> None:
        self._audit.note(
            self._clock(),
            who="" if caller is None else caller.name,
            peer=" ".join([context.peer(), *certificate_names(context)]),
            call=method,
            point=getattr(request, "decision_point", ""),
            verdict=verdict,
        )

    def _caller(self, context: grpc.ServicerContext, access: Access) -> Caller:
        """Return who calls; raises ``NotAuthenticated``, or ``NotPermitted`` for a certificate that is not listed."""
        token = _token(context)
        if token is not None:
            caller = access.by_token(token)
        elif access.knows_certificates and (names := certificate_names(context)):
            caller = access.by_certificate(names)
            if caller is None:
                raise NotPermitted(f"the certificate of {names[0]!r} is none of those that may call")
        else:
            raise NotAuthenticated("the call says not who makes it; send the metadata authorization: Bearer TOKEN")
        return valid(caller, self._clock())


def valid(caller: Caller | None, now_ms: int) -> Caller:
    """Return who was found; raises ``NotAuthenticated`` for nobody, and for who has expired.

    No word tells the two apart.
    """
    if caller is None or (caller.expires_ms is not None and caller.expires_ms <= now_ms):
        raise NotAuthenticated("the token or certificate is not known here, or not any more")
    return caller


def permit(caller: Caller, rule: Rule, request: object) -> None:
    """Raise ``NotPermitted`` where a caller may not make this request.

    The words are the same for a point that there is and for one that there is not.
    """
    if rule.scope not in caller.scopes:
        raise NotPermitted(f"{caller.name!r} lacks the scope {rule.scope!r}")
    if caller.points is None:
        return
    if rule.every:
        raise NotPermitted(f"{caller.name!r} is limited to some decision points, and this is for all of them")
    for point in rule.named(request):
        if not point:
            raise NotPermitted(f"{caller.name!r} is limited to some decision points; name the one that this is about")
        if point not in caller.points:
            raise NotPermitted(f"{caller.name!r} may not {rule.scope} for {point!r}")


def _token(context: grpc.ServicerContext) -> str | None:
    """Return the bearer token of a call; empty where the header is something else, ``None`` where there is none."""
    for name, value in context.invocation_metadata():
        if name == "authorization":
            return bearer(value if isinstance(value, str) else "")
    return None


def bearer(words: str) -> str:
    """Return the token of a header ``authorization``; empty where it holds something else."""
    return words[len(_BEARER) :].strip() if words[: len(_BEARER)].lower() == _BEARER else ""


def _code(context: grpc.ServicerContext) -> str:
    """Return the name of the status code that a servicer has set; empty where it has set none."""
    code: object = cast(grpc.Call, context).code()  # a context has it too, which grpc-stubs does not know
    return code.name if isinstance(code, grpc.StatusCode) else ""
