"""``leeway doctor``: says in words what is wrong, and what to do about it. Reads only."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path

from engine.errors import LeewayError, LogError
from engine.records import Feedback, Generation, JoinAccounting
from engine.serving.deciding import Slot
from engine.serving.watcher import schema_problem
from engine.store import PolicyStore
from streaming.config import Config, KafkaLogConfig
from streaming.dead_letters import scan
from streaming.embedded import EmbeddedLog
from streaming.finding import Finding, Level, ago
from streaming.holds import read_holds
from streaming.insight import latest_alarms, tail
from streaming.joiner import read_accounting
from streaming.lag import READ_BY, lag
from streaming.list_doctor import examine_lists
from streaming.log import Log
from streaming.opening import attach, begun
from streaming.options import shortened
from streaming.process_spools import spool_bytes, spool_path, spools
from streaming.processes import examine_processes
from streaming.spool import QUEUE, oldest_ms
from streaming.topics import DEAD_LETTERS, DECISIONS, FEEDBACK, GENERATIONS, JOIN, OUTCOMES, SHIPPING, topics
from streaming.up import whereabouts
from training.archive import ArchiveReader

MINUTE = 60_000


#: A decision may be dated so much ahead of the clock of the join, which waits for that time.
MAX_SKEW_MS = 5 * MINUTE
#: So much of what a dead letter says is quoted.
DETAIL_CHARACTERS = 240


def examine(config: Config, now_ms: int) -> Iterator[Finding]:
    """Look at everything and yield what was found."""
    yield from examine_processes(config)
    yield from _disk(config)
    if isinstance(config.log, KafkaLogConfig):
        yield from _spools(config, now_ms)
    elif not begun(config):
        yield Finding(Level.WARNING, "log", f"there is none yet at {config.log_dir}; it is made by: leeway up")
        return
    else:
        yield from _spools(config, now_ms)
    try:
        with closing(attach(config)) as log:
            if isinstance(config.log, KafkaLogConfig):
                finding = _cluster(config, config.log, log)
                yield finding
                if finding.level is not Level.OK:
                    return  # all else would fail for the same reason
            else:
                _readable(config, log)
            books = read_accounting(log)
            yield from _lag(log, now_ms)
            yield from _letters(log, books)
            for name in config.deciding:
                yield from _join(config, log, name, books.get(name, JoinAccounting()), now_ms)
                if name in config.recommenders:
                    yield from examine_lists(config, name, now_ms)
                else:
                    yield from _policy(config, log, name, now_ms)
                yield from _archive(config, name)
                yield from _alarms(log, name)
    except LeewayError as error:
        yield Finding(Level.PROBLEM, "log", str(error))


def _cluster(config: Config, settings: KafkaLogConfig, log: Log) -> Finding:
    """Say whether the brokers answer, and whether the topics are as they are configured."""
    subject = "kafka"
    try:
        log.committed(JOIN)
    except LogError as error:
        words = f"{error}. Until then decisions go to the spool, and nothing is joined"
        return Finding(Level.PROBLEM, subject, words)
    declared = topics(settings.partitions, settings.retention)
    counts: dict[str, int] = {}
    for topic in declared:
        with suppress(LogError):  # it does not exist
            counts[topic.name] = len(log.ends(topic.name))
    where = f"the brokers at {settings.where} answer"
    if not counts:
        return Finding(Level.WARNING, subject, f"{where}, and there is no topic yet; they are made by: leeway up")
    missing = [settings.topic_prefix + topic.name for topic in declared if topic.name not in counts]
    if missing:
        words = f"{where}, but there is no topic {', '.join(missing)}: what was in it is lost; it is made by: leeway up"
        return Finding(Level.PROBLEM, subject, words)
    for topic in declared:
        if counts[topic.name] != topic.partitions:
            words = (
                f"topic {settings.topic_prefix + topic.name} has {counts[topic.name]} partitions, not "
                f"{topic.partitions}; set log.partitions to what there is, or begin a new log with another "
                "log.topic_prefix"
            )
            return Finding(Level.PROBLEM, subject, words)
    return Finding(Level.OK, subject, f"{where}, with {len(counts)} topics of {settings.partitions} partitions or one")


def _readable(config: Config, log: Log) -> None:
    """Raise ``LogError`` where a topic of the embedded log is damaged, missing, or not as it is configured."""
    for topic in topics(config.log.partitions, config.log.retention):
        count = len(log.ends(topic.name))
        if count != topic.partitions:
            raise LogError(
                f"topic {topic.name} in {config.log_dir} has {count} partitions, not {topic.partitions}; set "
                "log.partitions to what there is, or begin a new log with another data_dir"
            )


def _spool(config: Config, path: Path, now_ms: int) -> Iterator[Finding]:
    """Say what waits on this machine's disk for the cluster, or for the log that several processes share."""
    subject = path.name
    on_kafka = isinstance(config.log, KafkaLogConfig)
    whither = "the cluster" if on_kafka else "the log"
    try:
        with closing(EmbeddedLog(path)) as spool:
            waiting = lag(spool, SHIPPING, [QUEUE])
            oldest = oldest_ms(spool, spool.committed(SHIPPING))
            used = spool.used_bytes()
    except LogError as error:
        yield Finding(Level.PROBLEM, subject, str(error))
        return
    limit = spool_bytes(config)
    room = f"{used / 2**20:.1f} of {limit / 2**20:.0f} MiB are in use"
    count = sum(behind.records for behind in waiting.values())
    if not count:
        yield Finding(Level.OK, subject, f"no record waits for {whither}; {room}")
        return
    age_s = 0.0 if oldest is None else max(now_ms - oldest, 0) / 1_000
    words = f"{count} records wait for {whither}, the oldest for {ago(round(age_s * 1_000))}; {room}"
    if used > 0.9 * limit:
        advice = (
            "when it is full, decisions are answered unrecorded and outcomes are refused: bring the brokers back, or "
            "raise log.spool_max_bytes and start `serve` again"
            if on_kafka
            else "when it is full, decisions and outcomes are refused: see in `serve`'s messages why the log takes none"
        )
        yield Finding(Level.PROBLEM, subject, f"{words}; {advice}")
    elif whereabouts(config, "serve") is None:
        yield Finding(Level.WARNING, subject, f"{words}; `serve` ships them when it runs: leeway up")
    elif age_s > MINUTE / 1_000:
        yield Finding(
            Level.WARNING,
            subject,
            f"{words}; {'see whether the brokers answer, and' if on_kafka else 'see'} `serve`'s messages",
        )
    else:
        yield Finding(Level.OK, subject, words)


def _spools(config: Config, now_ms: int) -> Iterator[Finding]:
    for path in spools(config).values():
        yield from _spool(config, path, now_ms)
    yield from _damaged_spools(config)


def _damaged_spools(config: Config) -> Iterator[Finding]:
    name = spool_path(config, 1).name.removesuffix("1")
    for aside in sorted(spool_path(config, 1).parent.glob(f"{name}*.damaged-*")):
        words = f"{aside} was damaged and moved aside, with records that the log may not have; mend it"
        yield Finding(Level.PROBLEM, aside.name, f"{words} (docs/operating.md, The spool), or delete it to forgo them")


def _disk(config: Config) -> Iterator[Finding]:
    usage = shutil.disk_usage(next(path for path in (config.data_dir, *config.data_dir.parents) if path.exists()))
    share = usage.free / usage.total
    words = f"{usage.free / 2**30:.1f} GiB ({share:.0%}) free at {config.data_dir}"
    if share < 0.02 or usage.free < 2**28:
        yield Finding(
            Level.PROBLEM, "disk", f"{words}; make room, or shorten log.retention: a full disk stops deciding"
        )
    elif share < 0.1 and usage.free < 10 * 2**30:
        yield Finding(Level.WARNING, "disk", f"{words}; it will fill: make room, or shorten log.retention")
    else:
        yield Finding(Level.OK, "disk", words)


def _lag(log: Log, now_ms: int) -> Iterator[Finding]:
    for group, names in READ_BY.items():
        waiting = lag(log, group, names)
        behind = waiting.values()
        records = sum(entry.records for entry in behind)
        # The time of feedback is that of its decision, a window ago; clients say the times of outcomes.
        stands = group == JOIN and waiting[DECISIONS].seconds(now_ms) * 1_000 > MAX_SKEW_MS
        level = Level.WARNING if records > 10_000 or stands else Level.OK
        age = f", the oldest {ago(round(max(e.seconds(now_ms) for e in behind) * 1_000))} old" if records else ""
        advice = "; it is slower than what comes in, or stands still: see its messages" if level is not Level.OK else ""
        yield Finding(level, f"{group} lag", f"{records} records behind{age}{advice}")


def _join(config: Config, log: Log, name: str, book: JoinAccounting, now_ms: int) -> Iterator[Finding]:
    subject = f"{name} join"
    window_s = config.deciding[name].reward.window / 1_000
    call = "Recommend" if name in config.recommenders else "Decide"
    if book.decisions == 0:
        yield Finding(Level.WARNING, subject, f"no decision was joined yet; call {call}, or see whether `work` runs")
        return
    rewarded = book.feedback - book.defaulted
    words = (
        f"{book.decisions} decisions = {rewarded} with reward + {book.defaulted} with the default"
        f" + {book.pending} pending"
    )
    if book.unactivated:
        words += f" + {book.unactivated} never activated"
    if book.decisions != book.feedback + book.pending + book.unactivated:
        yield Finding(Level.PROBLEM, subject, f"the books do not balance: {words}; please report this as a bug")
    elif rewarded == 0 and book.defaulted > 0:
        yield Finding(Level.PROBLEM, subject, f"nothing was ever joined: {words}. {_why_unjoined(log, window_s)}")
    elif book.defaulted > 0.98 * book.feedback:
        yield Finding(
            Level.WARNING, subject, f"{words}; hardly any outcome finds its decision. {_why_unjoined(log, window_s)}"
        )
    else:
        yield Finding(Level.OK, subject, words)
    overdue_ms = _overdue(config, name, book, now_ms)
    if overdue_ms:
        words = (
            f"{book.pending} decisions have no feedback, and their windows should have been closed {ago(overdue_ms)} "
            "ago: the join stands still or is far behind; see the messages of `work` or `join`"
        )
        yield Finding(Level.PROBLEM, f"{name} pending", words)
    if book.late_outcomes > 0.05 * max(rewarded, 1):
        yield Finding(
            Level.WARNING,
            subject,
            f"{book.late_outcomes} outcomes came after the window of {window_s:g} s;"
            " lengthen reward.window or reward.grace",
        )


def _overdue(config: Config, name: str, book: JoinAccounting, now_ms: int) -> int:
    """Return for how long every pending decision should have had its feedback, in milliseconds; 0: it need not have.

    The book is as of the last thing that the join did. Where it works, no decision of that time is pending when window
    and grace have passed since.
    """
    if not book.pending or not book.watermark_ms:
        return 0
    reward = config.deciding[name].reward
    due_ms = book.watermark_ms + reward.window + reward.grace
    return now_ms - due_ms if now_ms - due_ms > MAX_SKEW_MS else 0


def _letters(log: Log, books: Mapping[str, JoinAccounting]) -> Iterator[Finding]:
    count = sum(book.dead_letters for book in books.values())
    if count:
        words = f"{count} records could not be used (see: leeway dlq list); the last says {_last_letter(log)}"
        yield Finding(Level.WARNING, "dead letters", words)


def _last_letter(log: Log) -> str:
    ends = log.ends(DEAD_LETTERS)
    letters = [letter for number, end in ends.items() for letter in scan(log, number, max(0, end - 25), end)]
    if not letters:
        return "nothing: it has outlived log.retention"
    last = max(letters, key=lambda letter: letter.timestamp_ms)
    return shortened(f"{last.reason}: {last.detail}", DETAIL_CHARACTERS)


def _why_unjoined(log: Log, window_s: float) -> str:
    outcomes = sum(log.ends(OUTCOMES).values())
    if outcomes == 0:
        return "No outcome was reported: call Report with the decision_id of the answer"
    if not sum(log.ends(DEAD_LETTERS).values()):
        return f"{outcomes} outcomes were reported; see whether they come within the window of {window_s:g} s"
    return f"{outcomes} outcomes were reported; the last dead letter says {_last_letter(log)}"


def _policy(config: Config, log: Log, name: str, now_ms: int) -> Iterator[Finding]:
    subject = f"{name} policy"
    store = PolicyStore(config.policy_dir)
    version = store.current(name)
    if version is None:
        yield Finding(Level.WARNING, subject, "none was published yet: decisions are uniform; see whether `work` runs")
        return
    try:
        policy = store.load(name, version)
    except LeewayError as error:
        yield Finding(Level.PROBLEM, subject, f"cannot be loaded, the one before goes on serving: {error}")
        return
    problem = schema_problem(policy, Slot(name, config.points()[name], policy))
    if problem:
        yield Finding(Level.PROBLEM, subject, problem)
        return
    age_ms = now_ms - policy.created_ms
    publish_ms = config.points()[name].policy.publish_interval
    newest = max((Feedback.FromString(value).reward_time_ms for value in tail(log, FEEDBACK, 100)), default=0)
    words = f"{version} ({policy.oracle.kind}) has learned from {policy.learned} feedbacks; made {ago(age_ms)} ago"
    if config.decision_points[name].mode == "logging_only":
        words = (
            f"{version} stands by: the mode is logging_only, in which the caller's choice acts and nothing is learned"
        )
        yield Finding(Level.OK, subject, words)
    elif policy.learned == 0 and newest:
        yield Finding(
            Level.PROBLEM, subject, f"{words}; there is feedback and nothing is learned: see whether `work` runs"
        )
    elif policy.oracle.kind != "lightgbm" and newest - policy.created_ms > 5 * MINUTE + publish_ms:
        yield Finding(
            Level.PROBLEM, subject, f"{words}; feedback has come since and was not learned: see `work`'s messages"
        )
    else:
        yield Finding(Level.OK, subject, words)


def _archive(config: Config, name: str) -> Iterator[Finding]:
    subject = f"{name} archive"
    try:
        rows = ArchiveReader(config.archive_dir).count(name, 0)
    except LeewayError as error:
        yield Finding(Level.PROBLEM, subject, f"cannot be read, so nothing is archived or retrained: {error}")
    else:
        yield Finding(Level.OK, subject, f"{rows} feedbacks")


def _alarms(log: Log, name: str) -> Iterator[Finding]:
    subject = f"{name} drift"
    calls = [alarm for alarm in latest_alarms(log, name, 1_000) if alarm.calls_for_retraining]
    generations = [Generation.FromString(value) for value in tail(log, GENERATIONS, 1_000)]
    promoted = [g for g in generations if g.decision_point == name and g.promoted]
    open_alarms = [a for a in calls if not any(g.trained_ms > a.detected_ms for g in promoted)]
    held = read_holds(log).words(name)
    if held is not None:
        yield Finding(Level.WARNING, subject, f"nothing is trained or promoted: {held}")
    if open_alarms:
        last = open_alarms[-1]
        attempts = [g for g in generations if g.decision_point == name and g.trained_ms > last.detected_ms]
        tried = (
            f"; the last retraining was not promoted: {attempts[-1].verdict}" if attempts else "; not retrained since"
        )
        yield Finding(Level.WARNING, subject, f"an alarm is open: {last.explanation}{tried}")
    else:
        yield Finding(Level.OK, subject, f"no alarm is open ({len(calls)} so far)")


__all__ = ["Finding", "Level", "examine"]
