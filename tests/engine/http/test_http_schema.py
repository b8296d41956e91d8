"""The HTTP face against its own OpenAPI document: requests that fit it, and requests that nearly do."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    missing_required_header,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from tests.engine.http.face import Face

#: All but the one that wants everything of the right form to be accepted: what a decision point takes is not in it.
CHECKS = [
    not_a_server_error,
    content_type_conformance,
    missing_required_header,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
]
FACE = Face()
schema = schemathesis.openapi.from_asgi("/openapi.json", FACE.face.app())
seen: Counter[tuple[str, int]] = Counter()


@schema.hook
def map_body(context: schemathesis.HookContext, body: Any) -> Any:
    """Name what there is, often enough: else hardly a request would get beyond its decision point."""
    if isinstance(body, dict):
        for name, known in (("decision_point", "offers"), ("recommender", "shop")):
            if isinstance(body.get(name), str) and len(body[name]) != 1:
                body[name] = known
    return body


@schema.hook
def map_headers(context: schemathesis.HookContext, headers: Any) -> Any:
    """Leave time enough: a deadline of a millisecond ends with 504 on a busy machine, and rightly."""
    for name, value in (headers or {}).items():
        if name.lower() == "leeway-timeout-ms" and str(value).isdecimal() and 0 < int(value) < 10_000:
            headers[name] = f"{10_000 + int(value)}"
    return headers


def tried(examples: int) -> settings:
    return settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


def check(case: schemathesis.Case[Any]) -> None:
    response = case.call_and_validate(checks=CHECKS)
    seen[case.operation.path, response.status_code] += 1


@schema.parametrize()
@tried(40)
def test_what_comes_back_is_what_the_document_says(case: schemathesis.Case[Any]) -> None:
    check(case)


@pytest.mark.slow
@schema.parametrize()
@tried(1_500)
def test_what_comes_back_is_what_the_document_says_of_many(case: schemathesis.Case[Any]) -> None:
    check(case)


def test_the_requests_before_reached_the_core() -> None:
    if not seen:
        pytest.skip("run with the tests before")
    assert sum(count for (_, status), count in seen.items() if status == 200) >= 30
    assert sum(count for (_, status), count in seen.items() if status == 400) >= 30
    assert FACE.recorder.outcomes
