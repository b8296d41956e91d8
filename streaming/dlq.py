"""``leeway dlq``: what could not be used, looked at and replayed."""

from __future__ import annotations

import base64
import heapq
import math
import time
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import click
from google.protobuf.json_format import MessageToDict

from engine.config import parse_duration
from engine.errors import LeewayError
from streaming.dead_letters import REASONS, SOURCES, Letter, original, scan
from streaming.letter_replay import BATCH_RECORDS, Letters, new_letters, remember, replay
from streaming.log import Log, Record
from streaming.opening import open_existing
from streaming.options import actionable, config_option, log_config, print_json, shortened
from streaming.topics import DEAD_LETTERS, DECISIONS
from streaming.wire import UnreadableError, read_decision, read_outcome

#: A detail says what to do at its end, behind what it quotes.
DETAIL_CHARACTERS = 400


class Place(click.ParamType[tuple[int, int]]):
    """``PARTITION:OFFSET``, the name of a letter."""

    name = "partition:offset"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Return partition and offset."""
        partition, colon, offset = str(value).partition(":")
        if not (colon and partition.isdecimal() and offset.isdecimal()):
            self.fail(f"{value!r} names no letter; write PARTITION:OFFSET as `leeway dlq list` does, such as 0:17")
        return int(partition), int(offset)


class Ago(click.ParamType[int]):
    """A duration such as ``1h``, in milliseconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return milliseconds."""
        try:
            return parse_duration(value)
        except ValueError as error:
            self.fail(str(error))


@click.group()
def dlq() -> None:
    """Look at dead letters, the records that could not be used, and replay them."""


reason_option = click.option("--reason", type=click.Choice(REASONS), help="Letters with this reason alone.")


@dlq.command("list")
@config_option
@reason_option
@click.option("--since", "since_ms", type=Ago(), help="Records of the last time so long, such as 1h or 7d.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="The newest so many.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@actionable
def list_letters(config_path: Path, reason: str | None, since_ms: int | None, limit: int, as_json: bool) -> None:
    """List dead letters in the order of their records' times, the newest last."""
    earliest = -math.inf if since_ms is None else time.time_ns() // 1_000_000 - since_ms
    with closing(open_existing(log_config(config_path))) as log:
        ends = log.ends(DEAD_LETTERS)
        letters = (letter for number, end in ends.items() for letter in scan(log, number, 0, end))
        wanted = (x for x in letters if reason in (None, x.reason) and x.timestamp_ms >= earliest)
        # One more than is shown tells whether there are more.
        found = heapq.nlargest(limit + 1, wanted, key=lambda x: (x.timestamp_ms, x.offset, x.partition))
    newest = found[:limit][::-1]
    if as_json:
        print_json([_facts(letter) for letter in newest])
        return
    for letter in newest:
        origin = f"{letter.topic or 'unknown topic'} {letter.original_partition}:{letter.original_offset}"
        # What others have sent may be a megabyte of anything; --json and `show` have the whole of it.
        key = "none" if letter.key is None else shortened(letter.key.decode(errors="backslashreplace"))
        click.echo(
            f"{letter.place}  {_time(letter.timestamp_ms)}  {letter.reason or 'no reason'}  from {origin}, "
            f"key {key}: {shortened(letter.detail, DETAIL_CHARACTERS)}"
        )
    more = "; there are older ones: see --limit" if len(found) > limit else ""
    click.echo(f"{len(newest)} dead letters{more}" if newest else "no dead letters", err=True)


@dlq.command()
@config_option
@click.argument("place", type=Place())
@actionable
def show(config_path: Path, place: tuple[int, int]) -> None:
    """Print everything about the dead letter at PARTITION:OFFSET as JSON, its value decoded where it can be."""
    with closing(open_existing(log_config(config_path))) as log:
        letter = _letter(log, *place)
    value = letter.value
    print_json(
        {
            **_facts(letter),
            "headers": [[name, content.decode(errors="backslashreplace")] for name, content in letter.headers],
            "value_base64": None if value is None else base64.b64encode(value).decode(),
            **_decoded(letter),
        }
    )


@dlq.command("replay")
@config_option
@click.argument("places", type=Place(), nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every letter since the last replay of all.")
@reason_option
@click.option("--dry-run", is_flag=True, help="Say what would be replayed, and change nothing.")
@actionable
def replay_letters(
    config_path: Path, places: tuple[tuple[int, int], ...], everything: bool, reason: str | None, dry_run: bool
) -> None:
    """Append the records of dead letters to their topics again: --all, those of a --reason, or PARTITION:OFFSET...

    Mend the cause first: what still cannot be used becomes a dead letter again. --all remembers what it has
    replayed, and neither --all nor --reason replays it a second time.
    """
    if everything + (reason is not None) + bool(places) != 1:
        raise click.UsageError("name the letters in one way: --all, --reason, or PARTITION:OFFSET...")
    with closing(open_existing(log_config(config_path))) as log:
        ends = log.ends(DEAD_LETTERS)  # letters that the replay itself leads to are not replayed
        if places:
            named = [_letter(log, *place) for place in dict.fromkeys(places)]
            for letter in named:
                original(letter)  # refuses before anything is sent
            letters: Letters = partial(list, named)
        else:
            letters = partial(new_letters, log, ends, reason)
        counts = Counter(letter.topic for letter in letters()) if dry_run else replay(log, letters, _progress)
        if everything and not dry_run:
            remember(log, ends)
    ours = ", ".join(f"{counts[topic]} to {topic}" for topic in SOURCES if counts[topic]) or "0 records"
    click.echo(f"{'would replay' if dry_run else 'replayed'} {ours}")
    others = counts.total() - sum(counts[topic] for topic in SOURCES)
    if others:
        click.echo(f"{others} letters passed over: they do not come from {' or '.join(SOURCES)}", err=True)


def _progress(sent: int) -> None:
    if sent >= BATCH_RECORDS:  # few need no words before the last ones
        click.echo(f"{sent} replayed so far", err=True)


def _letter(log: Log, partition: int, offset: int) -> Letter:
    ends = log.ends(DEAD_LETTERS)
    if partition not in ends:
        raise LeewayError(f"letter {partition}:{offset}: there are partitions 0 to {len(ends) - 1} alone")
    letter = next(scan(log, partition, offset, offset + 1), None)
    if letter is None:
        raise LeewayError(
            f"letter {partition}:{offset}: is not there; it never was, or has outlived log.retention; "
            "see: leeway dlq list"
        )
    return letter


def _facts(letter: Letter) -> dict[str, Any]:
    return {
        "letter": letter.place,
        "reason": letter.reason,
        "detail": letter.detail,
        "topic": letter.topic,
        "partition": letter.original_partition,
        "offset": letter.original_offset,
        "timestamp_ms": letter.timestamp_ms,
        "key": None if letter.key is None else letter.key.decode(errors="backslashreplace"),
    }


def _decoded(letter: Letter) -> dict[str, Any]:
    """Return what the value says, or why it says nothing."""
    if letter.topic not in SOURCES:
        return {"problem": f"only records of {' and '.join(SOURCES)} can be decoded"}
    record = Record(letter.topic, 0, 0, letter.timestamp_ms, letter.key, letter.value, letter.headers)
    try:
        message = read_decision(record) if letter.topic == DECISIONS else read_outcome(record)
    except UnreadableError as error:
        return {"problem": str(error)}
    return {"value": MessageToDict(message, preserving_proto_field_name=True)}


def _time(time_ms: int) -> str:
    try:
        return datetime.fromtimestamp(time_ms / 1_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, ValueError, OSError):
        return f"{time_ms} ms"
