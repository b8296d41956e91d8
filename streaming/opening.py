"""The log that the configuration describes: opened, and with every topic declared."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence

from engine.errors import LogError
from streaming.config import Config, EmbeddedLogConfig
from streaming.embedded import EmbeddedLog
from streaming.kafka import KafkaLog
from streaming.log import Log, Topic
from streaming.topics import topics

logger = logging.getLogger(__name__)


def attach(config: Config) -> EmbeddedLog | KafkaLog:
    """Return the log, with nothing declared yet: on Kafka this asks the broker nothing, which may be away.

    Raises ``LogError`` where the directory of an embedded log cannot be used.
    """
    if isinstance(config.log, EmbeddedLogConfig):
        return EmbeddedLog(config.log_dir, fsync=config.log.fsync)
    return KafkaLog(config.log)


def declare(log: Log, config: Config, needed: Collection[str] | None = None) -> None:
    """Create the topics that do not exist, and check those that do.

    Parameters
    ----------
    log
        Where.
    config
        Says how many partitions they have and how long records are kept.
    needed
        Writers whose topics the caller cannot do without; ``None``: all. On the embedded log each writer has a file
        of its own, and a damaged one of another is reported and left to those who read it.

    Raises
    ------
    LogError
        The broker is away, or a topic that is needed exists otherwise or cannot be read.
    """
    if not isinstance(log, EmbeddedLog):
        log.create(topics(config.log.partitions, config.log.retention))
        return
    for writer, declared in declarations(config).items():
        try:
            log.create(declared)
        except LogError as error:
            if needed is None or writer in needed:
                raise
            logger.error("%s", error)


def declarations(config: Config) -> Mapping[str, Sequence[Topic]]:
    """Return the topics of each writer, as the configuration wants them."""
    by_writer: dict[str, list[Topic]] = {}
    for topic in topics(config.log.partitions, config.log.retention):
        by_writer.setdefault(topic.writer, []).append(topic)
    return by_writer


def open_existing(config: Config) -> EmbeddedLog | KafkaLog:
    """Open a log that was begun, and declare nothing: for who looks on, and must leave no trace.

    Raises ``LogError`` where there is no embedded log; on Kafka, reading a topic that does not exist does.
    """
    if isinstance(config.log, EmbeddedLogConfig) and not begun(config):
        raise LogError(f"there is no log yet at {config.log_dir}; it is made by: leeway up")
    return attach(config)


def begun(config: Config) -> bool:
    """Return whether an embedded log was ever written; opening one would make it."""
    return any(config.log_dir.glob("*.sqlite"))


def open_log(config: Config, needed: Collection[str] | None = None) -> EmbeddedLog | KafkaLog:
    """Open the log with every topic declared; see :func:`declare` for ``needed``, and for ``LogError``."""
    log = attach(config)
    try:
        declare(log, config, needed)
    except LogError:
        log.close()
        raise
    return log
