"""The gate's verdict as a page that a person reads: which point failed, and by how much. It needs nothing else."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape

from matplotlib.figure import Figure

from training import plots
from training.evaluation.policy import PolicyEvaluation
from training.gate import Check, Verdict
from training.window_quality import WindowQuality

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ font-family: system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222; }}
table {{ border-collapse: collapse; margin: 0.5rem 0 1.5rem; }}
th, td {{ border-bottom: 1px solid #ccc; padding: 0.25rem 0.75rem; text-align: left; vertical-align: top; }}
td.number {{ text-align: right; font-variant-numeric: tabular-nums; }}
tr.fails {{ background: #fbe9e7; font-weight: 600; }}
img {{ max-width: 100%; }}
.flag {{ background: #fff3cd; padding: 0.5rem 0.75rem; }}
</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""
ESTIMATED = (
    "The propensities were estimated, not logged. An error in them is one in every weight, and no interval knows of it."
)


def gate_report(
    title: str,
    verdicts: Mapping[str, Verdict],
    evaluations: Mapping[str, PolicyEvaluation],
    window: WindowQuality,
) -> str:
    """Return the page.

    Parameters
    ----------
    title
        Of the page.
    verdicts
        By candidate.
    evaluations
        Of the champion and the candidates.
    window
        What they were trained on.
    """
    differences = {
        name: (verdict.difference, next(check.bound for check in verdict.checks if check.name == "difference"))
        for name, verdict in verdicts.items()
    }
    sections = [f"<p>{escape(name)}: {escape(verdict.summary)}</p>" for name, verdict in verdicts.items()]
    sections.append(figure_section("Difference to the champion of each candidate", plots.differences(differences)))
    for name, verdict in verdicts.items():
        sections += [f"<h2>{escape(name)}: {'promoted' if verdict.promoted else 'refused'}</h2>", _checks(verdict)]
        sections.append(figure_section(f"Overlap of {name} with the log", plots.overlap(evaluations[name].rows, name)))
    sections += ["<h2>The training window</h2>", _window(window)]
    sections += estimates_section(evaluations)
    return page(title, sections)


def page(title: str, sections: Sequence[str]) -> str:
    """Return a page of finished sections."""
    return _PAGE.format(title=escape(title), body="\n".join(sections))


def estimates_section(evaluations: Mapping[str, PolicyEvaluation]) -> list[str]:
    """Return the estimates of each policy as a table and a plot, and what they rest on."""
    sections = ["<h2>Estimates</h2>"]
    if any(evaluation.rows.estimated for evaluation in evaluations.values()):
        sections.append(f'<p class="flag">{ESTIMATED}</p>')
    sections.append(
        figure_section(
            "Estimates of each policy by each estimator",
            plots.estimates({name: evaluation.estimates for name, evaluation in evaluations.items()}),
        )
    )
    rows = [
        [name, estimator, *(f"{x:.5f}" for x in (found.value, found.standard_error, found.low, found.high))]
        for name, evaluation in evaluations.items()
        for estimator, found in evaluation.estimates.items()
    ]
    sections.append(_table(["policy", "estimator", "value", "standard error", "low", "high"], rows, words=2))
    sections += ["<h2>What they rest on</h2>", _diagnostics(evaluations)]
    return sections


def _checks(verdict: Verdict) -> str:
    def row(check: Check) -> str:
        missing = "" if check.holds else f"{abs(check.value - check.bound):.4g}"
        cells = (
            f"<td>{escape(check.name)}</td><td>{'holds' if check.holds else 'fails'}</td>"
            f'<td class="number">{check.value:.4g}</td><td class="number">{check.bound:.4g}</td>'
            f'<td class="number">{missing}</td><td>{escape(check.words)}</td>'
        )
        return f"<tr>{cells}</tr>" if check.holds else f'<tr class="fails">{cells}</tr>'

    heads = "".join(f"<th>{head}</th>" for head in ("check", "", "found", "bound", "fails by", "in words"))
    return f"<table><tr>{heads}</tr>{''.join(row(check) for check in verdict.checks)}</table>"


def _window(window: WindowQuality) -> str:
    rows = [
        ["coverage (SACo)", f"{window.coverage:.3f}"],
        ["trajectory quality (TQ)", f"{window.trajectory_quality:.3f}"],
        ["share of positives", f"{window.positives:.3f}"],
        ["unexplained changes inside", f"{window.drifts}"],
    ]
    return _table(["measure", "value"], rows, words=1)


def _diagnostics(evaluations: Mapping[str, PolicyEvaluation]) -> str:
    rows = []
    for name, found in evaluations.items():
        shared = next(iter(found.estimates.values()))
        rows.append(
            [
                name,
                f"{shared.n}",
                f"{shared.effective_sample_size:.1f}",
                f"{shared.max_weight:.2f}",
                f"{shared.mean_weight:.3f}",
                f"{found.tail.share:.1%}",
                f"{found.tail.hill:.2f}",
                f"{found.unsupported:.2%}",
                f"{found.divergence.total_variation:.3f}",
                f"{found.divergence.kl:.3f}",
            ]
        )
    heads = [
        "policy",
        "rows",
        "effective sample size",
        "greatest weight",
        "mean weight",
        "weight of the top 1 %",
        "Hill index",
        "unsupported",
        "total variation",
        "KL",
    ]
    return _table(heads, rows, words=1)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], words: int) -> str:
    """Return a table; all columns after the first ``words`` hold numbers."""
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    body = "".join(
        "<tr>"
        + "".join(
            f"<td>{escape(cell)}</td>" if place < words else f'<td class="number">{escape(cell)}</td>'
            for place, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def figure_section(words: str, figure: Figure) -> str:
    """Return a plot as a section; ``words`` say what it shows to who cannot see it."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=90)
    data = base64.b64encode(file.getvalue()).decode()
    return f'<p><img alt="{escape(words)}" src="data:image/png;base64,{data}"></p>'
