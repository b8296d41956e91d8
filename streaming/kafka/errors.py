"""Errors of Kafka in words that a person can act on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kafka import errors

from engine.errors import LogError

#: The first class that an error belongs to says what to do.
_REMEDIES: tuple[tuple[tuple[type[Exception], ...], str], ...] = (
    (
        (errors.SaslAuthenticationFailedError, errors.UnsupportedSaslMechanismError, errors.IllegalSaslStateError),
        "check protocol, mechanism, username and password below security",
    ),
    ((errors.AuthorizationError,), "let the broker's administrator allow it to this user"),
    (
        (errors.MessageSizeTooLargeError, errors.RecordListTooLargeError),
        "raise max_message_bytes here and max.message.bytes of the topic",
    ),
    ((errors.UnknownTopicOrPartitionError, errors.InvalidTopicError), "create the topic first"),
    (
        (errors.ProducerFencedError, errors.InvalidProducerEpochError, errors.FencedInstanceIdError),
        "another process has the same instance_id; give each its own",
    ),
    (
        (errors.CommitFailedError, errors.IllegalGenerationError, errors.UnknownMemberIdError),
        "its partitions belong to another member of the group now; poll, and go on from what is committed",
    ),
    (
        (errors.InvalidReplicationFactorError, errors.NotEnoughReplicasError, errors.NotEnoughReplicasAfterAppendError),
        "start more brokers, or lower replication_factor and min_insync_replicas",
    ),
    ((errors.InvalidSessionTimeoutError,), "keep session_timeout within the broker's group.min/max.session.timeout.ms"),
    ((errors.InvalidTransactionTimeoutError,), "lower transaction_timeout to the broker's transaction.max.timeout.ms"),
    (
        (errors.UnsupportedVersionError, errors.UnrecognizedBrokerVersion, errors.InvalidConfigurationError),
        "use brokers of version 3.6 or newer",
    ),
    ((errors.InvalidTimestampError,), "raise message.timestamp.after.max.ms of the topic"),
    (
        (errors.RetriableError, errors.TransactionAbortedError, OSError),
        "check that the broker runs, that bootstrap_servers and security are right, and try again; the messages of the "
        "logger 'kafka' say more",
    ),
)


@contextmanager
def explained(where: str, doing: str) -> Iterator[None]:
    """Raise ``LogError`` for any error of Kafka, the network or the files of the certificates.

    Parameters
    ----------
    where
        The brokers.
    doing
        What is being done, in the infinitive.
    """
    try:
        yield
    except (errors.KafkaError, OSError) as error:
        raise LogError(f"Kafka at {where}: cannot {doing} ({_reason(error)}); {_remedy(error)}") from error


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, errors.KafkaError) else f"{type(error).__name__}: {error}"


def _remedy(error: Exception) -> str:
    for kinds, remedy in _REMEDIES:
        if isinstance(error, kinds):
            return remedy
    return "see the log of the broker"
