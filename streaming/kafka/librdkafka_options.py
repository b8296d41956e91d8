"""The settings of a cluster in the words of librdkafka.

Source of names and limits: https://docs.confluent.io/platform/current/clients/librdkafka/html/md_CONFIGURATION.html
"""

from __future__ import annotations

from typing import Any

from streaming.kafka.settings import ENVELOPE_BYTES, KafkaSettings

Options = dict[str, Any]

_FETCH_BYTES = 52_428_800
_FETCH_WAIT_MS = 100
#: Limits that librdkafka sets to its own options.
_MOST_MESSAGE_BYTES = 1_000_000_000
_MOST_RECEIVE_BYTES = 2_147_483_647
_MOST_SOCKET_MS = 300_000


def consumer_options(settings: KafkaSettings) -> Options:
    """Return what a consumer is given: committed records alone, positions kept by us, the ends of partitions told."""
    fetch = min(max(_FETCH_BYTES, _message_bytes(settings)), _MOST_RECEIVE_BYTES - ENVELOPE_BYTES)
    return _connection(settings, max(settings.request_timeout, _FETCH_WAIT_MS + 1_000)) | {
        "isolation.level": "read_committed",
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "enable.partition.eof": True,
        "allow.auto.create.topics": False,
        "check.crcs": True,
        "fetch.wait.max.ms": _FETCH_WAIT_MS,
        "fetch.max.bytes": fetch,
        "receive.message.max.bytes": fetch + ENVELOPE_BYTES,
        "fetch.error.backoff.ms": 20,
        # With a full queue the library looks again after so long; in its default of 1 s we had emptied it long ago.
        "fetch.queue.backoff.ms": 10,
    }


def reader_options(settings: KafkaSettings) -> Options:
    """Return what a reader of partitions is given; the library wants a name of a group, and this one is never in it."""
    return consumer_options(settings) | {
        "group.id": settings.topic_prefix + "reader",
        # Whoever reads a few records has others fetched ahead for nothing.
        "queued.max.messages.kbytes": 8_192,
    }


def member_options(settings: KafkaSettings, group: str, instance_id: str | None) -> Options:
    """Return what a member of a group is given.

    ``max_poll_interval`` counts as ``session_timeout`` where it is less: librdkafka takes no other.
    """
    options = consumer_options(settings) | {
        "group.id": group,
        "partition.assignment.strategy": "range",
        "session.timeout.ms": settings.session_timeout,
        "heartbeat.interval.ms": settings.heartbeat_interval,
        "max.poll.interval.ms": max(settings.max_poll_interval, settings.session_timeout),
    }
    return options if instance_id is None else options | {"group.instance.id": instance_id}


def appender_options(settings: KafkaSettings) -> Options:
    """Return what the appender is given."""
    return _producer(settings, settings.delivery_timeout, settings.request_timeout)


def writer_options(settings: KafkaSettings, transactional_id: str) -> Options:
    """Return what a transactional producer is given: nothing takes longer than the transaction may."""
    most = settings.transaction_timeout
    return _producer(settings, min(settings.delivery_timeout, most), min(settings.request_timeout, most)) | {
        "transactional.id": transactional_id,
        "transaction.timeout.ms": most,
    }


def _producer(settings: KafkaSettings, delivery_ms: int, request_ms: int) -> Options:
    """Return what every producer is given: nothing is safe before all replicas in sync have it, once."""
    return _connection(settings, request_ms) | {
        "acks": "all",
        "enable.idempotence": True,
        "allow.auto.create.topics": False,
        "compression.type": settings.compression,
        "message.timeout.ms": delivery_ms,
        "request.timeout.ms": request_ms,
        "message.max.bytes": min(_message_bytes(settings), _MOST_MESSAGE_BYTES),
        # Whoever sends waits for the end: a limit would only make the end come later.
        "queue.buffering.max.messages": 0,
        "queue.buffering.max.kbytes": 2_147_483_647,
        # Sending begins while the rest is handed over; a flush waits for no batch to fill.
        "linger.ms": 5,
        # With no broker left, librdkafka 2.16 would drop those it knows and start again at the addresses of bootstrap
        # (KIP-899). Of an idle transactional producer, the thread of a dropped broker never ends, and its next commit
        # waits for it without end, whatever its timeout. Nothing is lost: after an error a new producer starts there.
        "metadata.recovery.strategy": "none",
    }


def _connection(settings: KafkaSettings, request_ms: int) -> Options:
    """Return what every client is given."""
    request_ms = min(request_ms, _MOST_SOCKET_MS)
    security = settings.security
    options: Options = {
        "bootstrap.servers": ",".join(settings.bootstrap_servers),
        "client.id": settings.client_id,
        "socket.timeout.ms": request_ms,
        "socket.connection.setup.timeout.ms": request_ms,
        "connections.max.idle.ms": 540_000,
        "log.connection.close": False,
        # A broker that comes back is found within a second; the library's default may rest for 10.
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 1_000,
        # The library waits so long after "the last transaction is still being completed", which takes 10 ms or so.
        "retry.backoff.ms": 20,
        "security.protocol": security.protocol,
    }
    if security.protocol.startswith("sasl") and security.password is not None:
        options |= {
            "sasl.mechanism": security.mechanism,
            "sasl.username": security.username,
            "sasl.password": security.password.get_secret_value(),
        }
    if security.protocol.endswith("ssl"):
        files = {
            "ssl.ca.location": security.ca_file,
            "ssl.certificate.location": security.certificate_file,
            "ssl.key.location": security.key_file,
            "ssl.key.password": security.key_password and security.key_password.get_secret_value(),
        }
        options |= {name: value for name, value in files.items() if value is not None}
        options["ssl.endpoint.identification.algorithm"] = "https" if security.check_hostname else "none"
    return options


def _message_bytes(settings: KafkaSettings) -> int:
    return settings.record_bytes(derived=True) + ENVELOPE_BYTES
