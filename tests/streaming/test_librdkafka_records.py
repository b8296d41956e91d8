"""What is made of the messages that librdkafka gives; without a broker."""

from __future__ import annotations

from collections.abc import Sequence

from confluent_kafka import Message

from streaming.kafka.librdkafka_records import Headers

HEADERS = [("content-type", b"application/json"), ("trace", None), ("trace", b"\xff")]


class Counted(Message):
    """A message that counts how often it is asked for its headers."""

    asked = 0

    def headers(self) -> Sequence[tuple[str, bytes | None]] | None:  # type: ignore[override]
        self.asked += 1
        return HEADERS


def test_headers_are_asked_for_when_they_are_looked_at_and_once() -> None:
    message = Counted()
    headers = Headers(message)
    assert message.asked == 0
    assert list(headers) == HEADERS
    assert headers[1:] == tuple(HEADERS[1:])
    assert message.asked == 1


def test_headers_are_like_a_tuple_of_them() -> None:
    headers = Headers(Counted())
    assert headers == tuple(HEADERS) == headers
    assert headers == Headers(Counted())
    assert headers != tuple(HEADERS[:1])
    assert hash(headers) == hash(tuple(HEADERS))
    assert repr(headers) == repr(tuple(HEADERS))
    assert len(headers) == 3


def test_a_message_without_headers_has_none() -> None:
    assert Headers(Message()) == ()
