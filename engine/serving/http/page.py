"""The page that shows the OpenAPI document: made here, so that it needs no network and no other file."""

from __future__ import annotations

import json
from html import escape
from typing import Any

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a; }
code, pre, textarea { font: 13px/1.45 ui-monospace, monospace; }
pre, textarea { background: #f5f5f2; border: 1px solid #ddd; padding: .7rem; overflow: auto; width: 100%; }
textarea { min-height: 9rem; } pre, textarea { box-sizing: border-box; }
section { border-top: 1px solid #ccc; padding: .5rem 0 1rem; } td { padding: .1rem 1rem .1rem 0; vertical-align: top; }
"""
_SCRIPT = """
for (const form of document.querySelectorAll("form")) form.addEventListener("submit", async event => {
  event.preventDefault();
  const out = form.querySelector("output");
  try {
    const answer = await fetch(form.dataset.path, {
      method: "POST", headers: {"content-type": "application/json"}, body: form.querySelector("textarea").value });
    out.textContent = answer.status + "\\n" + JSON.stringify(await answer.json(), null, 2);
  } catch (error) { out.textContent = String(error); }
});
"""


def page(document: dict[str, Any]) -> str:
    """Return an OpenAPI document as a page that can also send requests."""
    schemas = document["components"]["schemas"]
    calls = "".join(
        _call(path, verb, call, schemas) for path, verbs in document["paths"].items() for verb, call in verbs.items()
    )
    forms = "".join(
        f'<section id="{escape(name)}"><h3>{escape(name)}</h3><p>{escape(schema.get("description", ""))}</p>'
        f"<details><summary>Schema</summary><pre>{_pretty(schema)}</pre></details></section>"
        for name, schema in schemas.items()
    )
    title = escape(f"{document['info']['title']} {document['info']['version']}")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body><h1>{title}</h1>'
        f'<p>{escape(document["info"]["description"])} As a document: <a href="openapi.json">openapi.json</a>.</p>'
        f"{calls}<h2>Forms</h2>{forms}<script>{_SCRIPT}</script></body></html>"
    )


def _call(path: str, verb: str, call: dict[str, Any], schemas: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td><code>{code}</code></td><td>{escape(said['description'])}</td><td>{_link(said)}</td></tr>"
        for code, said in call["responses"].items()
    )
    body = ""
    if "requestBody" in call:
        kind = _kind(call["requestBody"])
        example = schemas[kind].get("examples", [{}])[0]
        body = (
            f"<p>Takes {_link(call['requestBody'])}.</p>"
            f'<form data-path="{escape(path)}"><textarea aria-label="body">{_pretty(example)}</textarea>'
            "<button>Send</button><pre><output></output></pre></form>"
        )
    return (
        f"<section><h2><code>{verb.upper()} {escape(path)}</code></h2><p>{escape(call['summary'])}</p>{body}"
        f"<table>{rows}</table></section>"
    )


def _kind(said: dict[str, Any]) -> str:
    (content,) = said["content"].values()
    return str(content["schema"]["$ref"].rsplit("/", 1)[1])


def _link(said: dict[str, Any]) -> str:
    kind = escape(_kind(said))
    return f'<a href="#{kind}">{kind}</a>'


def _pretty(value: object) -> str:
    return escape(json.dumps(value, indent=2))
