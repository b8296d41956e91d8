"""Clients of kafka-python that end: also when they cannot begin, and when the broker does not answer."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import kafka
from kafka import errors
from kafka.net.compat import KafkaNetClient


def connect(kind: Any, **options: Any) -> Any:
    """Return a client of a class of kafka-python.

    Where that fails, the error says why, and what had begun is stopped: kafka-python 3.0 tells the reason to its logger
    alone, and leaves behind a thread that tries on for ever.
    """
    begun: list[Any] = []
    failures: list[Exception] = []

    def client(**configuration: Any) -> Any:
        begun.append(KafkaNetClient(**configuration))
        manager = begun[-1]._manager
        get_connection = manager.get_connection

        def watched(*arguments: Any, **named: Any) -> Any:
            connection = get_connection(*arguments, **named)
            connection.init_future.add_errback(failures.append)
            authenticate = connection._sasl_authenticate

            async def heard(*arguments: Any, **named: Any) -> None:
                _read_last_words(connection.transport)
                await authenticate(*arguments, **named)

            connection._sasl_authenticate = heard
            return connection

        manager.get_connection = watched
        return begun[-1]

    try:
        made = kind(kafka_client=client, **options)
    except BaseException as error:
        for each in begun:
            each.close()
        if failures and isinstance(error, errors.KafkaTimeoutError):
            logins = [each for each in failures if isinstance(each, errors.SaslAuthenticationFailedError)]
            raise (logins or failures)[-1] from error
        raise
    for each in begun:
        del each._manager.get_connection
    return made


def _read_last_words(transport: Any) -> None:
    """Let a connection read what the other end has said before it hung up.

    kafka-python 3.0 drops it when both arrive together; so a broker that says why it refuses a login is not heard.
    """
    receive = transport._sock_recv

    def receive_first() -> tuple[bytes, Exception | None]:
        data, error = receive()
        return data, None if data else error

    transport._sock_recv = receive_first


def remember_joins(consumer: Any) -> None:
    """Let a consumer take note, in its next poll, of a rebalance that ended between two polls.

    kafka-python 3.0 forgets such a rebalance and begins another one, which all members have to take part in: with short
    polls a group may never come to rest.
    """
    coordinator = consumer._coordinator
    join, complete = coordinator._do_join_and_sync_async, coordinator._on_join_complete_async
    ended: list[tuple[Any, bytes]] = []

    async def join_once() -> bytes:
        if not ended or ended[-1][0] is not coordinator._generation:
            assignment = await join()
            ended[:] = [(coordinator._generation, assignment)]
        return ended[-1][1]

    async def complete_once(*arguments: Any) -> None:
        ended.clear()
        await complete(*arguments)

    coordinator._do_join_and_sync_async, coordinator._on_join_complete_async = join_once, complete_once


def give_back_parked(consumer: Any) -> None:
    """Let a consumer go on with a partition that was half read when it was paused, once it is resumed.

    kafka-python 3.0 puts aside what it has of it, and takes that back when the place of what is read now is free. A
    place whose records are all read is not free to it, and stays so until others come: the partition is never fetched.
    """
    fetcher = consumer._fetcher
    read = fetcher.fetched_records

    def read_with_place(*arguments: Any, **named: Any) -> Any:
        if not fetcher._next_partition_records:
            fetcher._next_partition_records = None
        return read(*arguments, **named)

    fetcher.fetched_records = read_with_place


class Producer(kafka.KafkaProducer):  # type: ignore[misc]  # no type information
    """A producer that does not wait for ever: kafka-python 3.0 sets no end to the steps of a transaction."""

    def send_offsets_to_transaction(self, offsets: Any, group_metadata: Any) -> None:
        """Add consumed offsets to the transaction."""
        self._await(self._transaction_manager.send_offsets_to_transaction(offsets, group_metadata), "take the offsets")

    def commit_transaction(self) -> None:
        """Commit the transaction."""
        self._await(self._transaction_manager.begin_commit(), "commit")

    def abort_transaction(self) -> None:
        """Abort the transaction."""
        self._await(self._transaction_manager.begin_abort(), "abort")

    def give_up(self) -> None:
        """Close at once; what was not sent is lost."""
        self._sender.force_close()
        self._sender.join(self.config["request_timeout_ms"] / 1_000.0)
        with suppress(errors.KafkaTimeoutError):  # of a sender that is stuck: it ends as soon as it can
            self.close(timeout=0)

    def _await(self, result: Any, doing: str) -> None:
        self._sender.wakeup()
        if not result.wait(timeout_ms=self.config["max_block_ms"]):
            raise errors.KafkaTimeoutError(f"the broker did not {doing} within {self.config['max_block_ms']} ms")
