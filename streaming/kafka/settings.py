"""How to reach Kafka and what to ask of it: the part of the configuration that the Kafka log reads."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated, Any, Literal

from kafka.codec import has_lz4, has_zstd
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationInfo, field_validator

from engine.config import Milliseconds, Model

#: What a record and its batch add to key, value and headers, with room to spare.
ENVELOPE_BYTES = 4_096
#: What a derived record adds to the one that it holds, with room to spare: the reason of a dead letter, say.
DERIVED_BYTES = 16_384
#: A derived record may always be so large: it may hold many.
LEAST_DERIVED_BYTES = 1_048_576

_CODECS = {"lz4": (has_lz4, "lz4"), "zstd": (has_zstd, "zstandard")}


def _has_port(address: str) -> str:
    if not 1 <= int(address.rpartition(":")[2]) <= 65_535:
        raise ValueError("has a port that does not exist; ports are 1 to 65535")
    return address


ClientName = Literal["kafka-python", "librdkafka"]
ServerAddress = Annotated[
    str, Field(pattern=r"^[^\s:/,]+:\d{1,5}$|^\[[0-9a-fA-F:]+\]:\d{1,5}$"), AfterValidator(_has_port)
]
#: Overrides from the environment are read as YAML: a password of digits alone arrives as a number.
Secret = Annotated[SecretStr, BeforeValidator(lambda value: str(value) if isinstance(value, int | float) else value)]


class KafkaSecurity(Model):
    """Encryption and identity. Give passwords by the environment, as any setting can be given, not in a file.

    A check of several settings belongs to ``protocol``, which is therefore the last: the message of a failed check
    shows what it was given, and must not show a password.
    """

    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    username: str | None = None
    password: Secret | None = None
    ca_file: str | None = Field(None, description="who signs the brokers' certificates; null: those the system trusts")
    certificate_file: str | None = Field(None, description="this client's own, where brokers ask for one")
    key_file: str | None = None
    key_password: Secret | None = None
    check_hostname: bool = True
    protocol: Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"] = "plaintext"

    @field_validator("protocol")
    @classmethod
    def _complete(cls, protocol: str, info: ValidationInfo) -> str:
        missing = [name for name in ("username", "password") if info.data.get(name) is None]
        if protocol.startswith("sasl") and missing:
            raise ValueError(f"needs {' and '.join(missing)}; give the password by the environment")
        return protocol


class KafkaSettings(Model):
    """A Kafka cluster as a log; see :class:`streaming.kafka.KafkaLog`."""

    bootstrap_servers: list[ServerAddress] = Field(min_length=1, description="host:port of one broker or more")
    client: ClientName = Field(
        "kafka-python", description="the library; librdkafka is faster, and is installed with leeway[librdkafka]"
    )
    client_id: str = Field("leeway", description="names this installation in the broker's logs and quotas")
    topic_prefix: str = Field(
        "",
        pattern=r"^[A-Za-z0-9._-]{0,100}$",
        description="before the name of each topic, group and transactional id: installations share a cluster",
    )
    instance_id: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9._-]{1,64}$",
        description="of this process, the same after a restart and no other's: it gets its partitions back at once",
    )
    replication_factor: int | None = Field(
        None, ge=1, le=32_767, description="of new topics; null: the broker's default"
    )
    min_insync_replicas: int | None = Field(None, ge=1, description="of new topics; null: the broker's default")
    max_message_bytes: int = Field(
        8_388_608, ge=1_024, le=2_000_000_000, description="key, value and headers of one record"
    )
    compression: Literal["none", "gzip", "lz4", "zstd"] = "none"
    security: KafkaSecurity = KafkaSecurity()
    request_timeout: Milliseconds = Field(10_000, ge=1_000, le=500_000, description="for an answer of the broker")
    delivery_timeout: Milliseconds = Field(
        30_000, description="for a record to be safe, attempts included; at least 1 s more than request_timeout"
    )
    transaction_timeout: Milliseconds = Field(
        30_000, ge=1_000, description="a broken transaction hides later records for so long at most, and 10 s"
    )
    heartbeat_interval: Milliseconds = Field(3_000, ge=100, description="a change of the group is noticed so soon")
    session_timeout: Milliseconds = Field(
        45_000, description="a member that is silent for so long is dead; at least three heartbeats"
    )
    max_poll_interval: Milliseconds = Field(
        300_000, ge=1_000, description="a member that works for so long without a poll loses its partitions"
    )

    @field_validator("client")
    @classmethod
    def _has_library(cls, client: ClientName) -> ClientName:
        if client == "librdkafka" and find_spec("confluent_kafka") is None:
            raise ValueError(
                "needs a package that is not installed; pip install leeway[librdkafka], or use kafka-python"
            )
        return client

    @field_validator("topic_prefix")
    @classmethod
    def _begins_a_name(cls, prefix: str) -> str:
        # "." and ".." are no names for Kafka, and names with "__" before them are its own.
        if prefix and not prefix[0].isalnum():
            raise ValueError("must begin with a letter or a digit, such as offers-")
        return prefix

    @field_validator("compression")
    @classmethod
    def _installed(cls, compression: str) -> str:
        available, package = _CODECS.get(compression, (lambda: True, ""))
        if not available():
            raise ValueError(f"needs a package that is not installed; pip install {package}, or use gzip or none")
        return compression

    # Checked field by field: a message about all settings would show the password among them.
    @field_validator("delivery_timeout")
    @classmethod
    def _outlives_request(cls, delivery: int, info: ValidationInfo) -> int:
        request = info.data.get("request_timeout", 0)
        if delivery < request + 1_000:
            raise ValueError(f"must be at least 1 s more than request_timeout ({request} ms)")
        return delivery

    @field_validator("session_timeout")
    @classmethod
    def _outlives_heartbeats(cls, session: int, info: ValidationInfo) -> int:
        heartbeat = info.data.get("heartbeat_interval", 0)
        if session < 3 * heartbeat:
            raise ValueError(f"must be at least three times heartbeat_interval ({heartbeat} ms)")
        return session

    @property
    def where(self) -> str:
        """The brokers, for messages."""
        return ", ".join(self.bootstrap_servers)

    def record_bytes(self, *, derived: bool) -> int:
        """Return how large a record may be: key, value and headers.

        What is made of others has more room, so that a record which came in can always be passed on.
        """
        return max(self.max_message_bytes, LEAST_DERIVED_BYTES) + DERIVED_BYTES if derived else self.max_message_bytes

    def connection(self) -> dict[str, Any]:
        """Return what every client of kafka-python is given."""
        security = self.security
        options: dict[str, Any] = {
            "bootstrap_servers": self.bootstrap_servers,
            "client_id": self.client_id,
            "request_timeout_ms": self.request_timeout,
            "bootstrap_timeout_ms": self.request_timeout,
            "connections_max_idle_ms": 540_000,
            # A broker that comes back is found within a second; the library's default may rest for 30.
            "reconnect_backoff_max_ms": 1_000,
            # The library waits so long after "the last transaction is still being completed", which takes 10 ms or so.
            "retry_backoff_ms": 20,
            "security_protocol": security.protocol.upper(),
        }
        if security.protocol.startswith("sasl") and security.password is not None:
            options |= {
                "sasl_mechanism": security.mechanism,
                "sasl_plain_username": security.username,
                "sasl_plain_password": _Masked(security.password.get_secret_value()),
            }
        if security.protocol.endswith("ssl"):
            options |= {
                "ssl_check_hostname": security.check_hostname,
                "ssl_cafile": security.ca_file,
                "ssl_certfile": security.certificate_file,
                "ssl_keyfile": security.key_file,
                "ssl_password": security.key_password and _Masked(security.key_password.get_secret_value()),
            }
        return options

    def producer(self) -> dict[str, Any]:
        """Return what every producer is given: nothing is safe before all replicas in sync have it, once."""
        return self.connection() | {
            "acks": "all",
            "enable_idempotence": True,
            "allow_auto_create_topics": False,
            "compression_type": None if self.compression == "none" else self.compression,
            "delivery_timeout_ms": self.delivery_timeout,
            "max_block_ms": self.request_timeout,
            "max_request_size": self.record_bytes(derived=True) + ENVELOPE_BYTES,
            # Every caller sends many records and flushes: a batch need not leave before it is full or flushed.
            "linger_ms": 100,
            "batch_size": 262_144,
            "metrics_enabled": False,
        }

    def consumer(self) -> dict[str, Any]:
        """Return what every consumer is given: committed records alone, from the beginning, positions kept by us."""
        return self.connection() | {
            "isolation_level": "read_committed",
            "auto_offset_reset": "earliest",
            "enable_auto_commit": False,
            "allow_auto_create_topics": False,
            "metrics_enabled": False,
        }


class _Masked(str):
    """A password that looks like asterisks in the library's debug messages."""

    def __repr__(self) -> str:
        return "'***'"
