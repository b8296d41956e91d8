"""What the HTTP face takes and gives, as an OpenAPI 3.1 document."""

from __future__ import annotations

from typing import Any, Literal

from pydantic.json_schema import models_json_schema

from engine import __version__
from engine.serving.http.forms import (
    ActivateAnswer,
    ActivateForm,
    DecideAnswer,
    DecideBatchForm,
    DecideForm,
    Form,
    HealthAnswer,
    RecommendAnswer,
    RecommendForm,
    ReportAnswer,
    ReportBatchForm,
    ReportForm,
)
from engine.serving.http.problems import MEDIA_TYPE, DecideBatchAnswer, Problem, ReportBatchAnswer

DEADLINE_HEADER = "Leeway-Timeout-Ms"

#: Path, name of the operation, what it is for, and the forms of its request and answer.
_CALLS: tuple[tuple[str, str, str, type[Form], type[Form]], ...] = (
    ("/v1/decide", "decide", "Which of these actions for this context?", DecideForm, DecideAnswer),
    ("/v1/decide/batch", "decideBatch", "Many decisions at once", DecideBatchForm, DecideBatchAnswer),
    ("/v1/recommend", "recommend", "Which of these items, in which order?", RecommendForm, RecommendAnswer),
    ("/v1/report", "report", "What came of a decision", ReportForm, ReportAnswer),
    ("/v1/report/batch", "reportBatch", "Many outcomes at once", ReportBatchForm, ReportBatchAnswer),
    ("/v1/activate", "activate", "A deferred decision is acted on", ActivateForm, ActivateAnswer),
)
_LOOKS: tuple[tuple[str, str, str], ...] = (
    ("/health", "alive", "Whether the process lives"),
    ("/ready", "ready", "Whether requests should come here"),
)
_PROBLEMS = {
    "400": "The request does not fit; `violations` names the fields. Correct it.",
    "404": "No such decision point or recommender. Correct it.",
    "408": "The body did not come in time. Send it again.",
    "413": "The body is too large. Send less at once.",
    "415": "The body is no `application/json`.",
    "500": "A fault of the server, which its log describes.",
    "503": "The log does not take records, or there is no room. Send the same again after `Retry-After` seconds.",
    "504": "The log did not confirm in time. Send the same again: with an id, the answer will be the same.",
}


def document() -> dict[str, Any]:
    """Return the document."""
    kinds: set[type[Form]] = {Problem, HealthAnswer}
    for *_, asked, answered in _CALLS:
        kinds |= {asked, answered}
    named: list[tuple[type[Form], Literal["validation"]]] = [
        (kind, "validation") for kind in sorted(kinds, key=lambda kind: kind.__name__)
    ]
    _, schemas = models_json_schema(
        named,
        ref_template="#/components/schemas/{model}",
    )
    paths: dict[str, Any] = {
        path: {
            "post": {
                "operationId": name,
                "summary": words,
                "parameters": [
                    {
                        "name": DEADLINE_HEADER,
                        "in": "header",
                        "description": "milliseconds until the caller gives up; default: serving.default_deadline",
                        "schema": {"type": "integer", "minimum": 1, "maximum": 3_600_000},
                    }
                ],
                "requestBody": {"required": True, "content": _content("application/json", asked)},
                "responses": {
                    "200": {"description": "The answer", "content": _content("application/json", answered)},
                    **{code: _problem(code, words) for code, words in _PROBLEMS.items()},
                },
            }
        }
        for path, name, words, asked, answered in _CALLS
    }
    for path, name, words in _LOOKS:
        responses = {"200": {"description": "It is so", "content": _content("application/json", HealthAnswer)}}
        if name == "ready":
            responses["503"] = {"description": "It drains", "content": _content("application/json", HealthAnswer)}
        paths[path] = {"get": {"operationId": name, "summary": words, "responses": responses}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Leeway", "version": __version__, "description": "Decisions and their outcomes over HTTP."},
        "paths": paths,
        "components": {"schemas": schemas["$defs"]},
    }


def _content(media_type: str, kind: type[Form]) -> dict[str, Any]:
    return {media_type: {"schema": {"$ref": f"#/components/schemas/{kind.__name__}"}}}


def _problem(code: str, words: str) -> dict[str, Any]:
    said: dict[str, Any] = {"description": words, "content": _content(MEDIA_TYPE, Problem)}
    if code in ("503", "504"):
        said["headers"] = {"Retry-After": {"description": "seconds", "schema": {"type": "integer"}}}
    return said
