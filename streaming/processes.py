"""How the processes of this machine fare, by their run files and their metrics: a part of ``leeway doctor``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from http.client import HTTPConnection, HTTPException

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from streaming.config import Config
from streaming.finding import Finding, Level
from streaming.up import joiners, serving_role, whereabouts

#: A process that lives answers at once; one that hangs must not make the doctor hang.
PATIENCE_S = 2.0
#: An address to listen on that means all of a machine, and one of them to ask.
_ANY = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}


def examine_processes(config: Config) -> Iterator[Finding]:
    """Say which processes run on this data directory, which of their roles do not work, and what serving lost."""
    for role, consequence in (("serve", "nothing is decided"), ("work", "nothing is joined or learned")):
        facts = whereabouts(config, role)
        if facts is None:
            yield Finding(Level.PROBLEM, role, f"does not run, so {consequence}; start it with: leeway up")
        else:
            yield Finding(Level.OK, role, f"runs (pid {facts['pid']})")
            yield from _crew(config, facts)
            yield from _state(config, role, facts)
    members = joiners(config)
    if members:
        yield Finding(Level.OK, "join", f"{len(members)} members run here: {', '.join(members)}")
        for member in members:
            yield from _state(config, member, whereabouts(config, member) or {})
    elif (whereabouts(config, "work") or {}).get("join") is False:
        yield Finding(
            Level.WARNING,
            "join",
            "`work` leaves it out and no member runs here; if none runs on another machine, start: leeway join",
        )


def _crew(config: Config, facts: Mapping[str, object]) -> Iterator[Finding]:
    """Say how many of several serving processes serve; nothing where there is one."""
    wanted = facts.get("processes")
    if not isinstance(wanted, int):
        return
    serving = sum(whereabouts(config, serving_role(number)) is not None for number in range(1, wanted + 1))
    words = f"{serving} of {wanted} serve"
    if serving == wanted:
        yield Finding(Level.OK, "serving processes", words)
    else:
        yield Finding(Level.WARNING, "serving processes", f"{words}; why the others fell stands in `serve`'s messages")


def _state(config: Config, process: str, facts: Mapping[str, object]) -> Iterator[Finding]:
    """Say what the metrics of a process tell of it; nothing where it announced none, or all is well."""
    port = facts.get("metrics_port")
    if not isinstance(port, int):
        return
    host = _ANY.get(config.metrics.host, config.metrics.host)
    try:
        samples = _samples(scrape(host, port))
    except (OSError, HTTPException, ValueError) as error:
        words = (
            f"its metrics at {host}:{port} do not answer ({error}), so how it fares is not known; if they go on "
            "not to answer, see its messages and start it again"
        )
        yield Finding(Level.WARNING, f"{process} metrics", words)
        return
    for sample in samples:
        if sample.name == "leeway_role_up" and sample.value == 0:
            role = sample.labels.get("role", "")
            words = (
                f"does not work, though `{process}` (pid {facts.get('pid')}) runs; it tries again all the time: what "
                f"hinders it stands in the messages of `{process}`"
            )
            yield Finding(Level.PROBLEM, f"{role} role", words)
        elif sample.name == "leeway_decisions_unrecorded_total" and sample.value > 0:
            words = (
                f"{sample.value:.0f} decisions were answered unrecorded since `{process}` started, but for retries "
                "that were recorded: their rewards are not learned. Neither brokers nor spool took them: bring the "
                f"brokers back, make room on the disk or raise log.spool_max_bytes, and see the messages of `{process}`"
            )
            yield Finding(Level.WARNING, f"{sample.labels.get('decision_point', '')} recording", words)


def scrape(host: str, port: int) -> str:
    """Return what Prometheus would get; raises ``OSError``, ``HTTPException`` or ``ValueError``."""
    with closing(HTTPConnection(host, port, timeout=PATIENCE_S)) as connection:
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        if answer.status != 200:
            raise ValueError(f"status {answer.status}")
        return answer.read().decode()


def _samples(text: str) -> list[Sample]:
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]
