"""Clients that die, hang or do not read: others do not notice, and what they held is given back."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import grpc

from benchmarks._serving_load import Connection, Load
from engine.api.leeway.v1 import service_pb2_grpc
from engine.channel import open_channel
from tests.engine.samples import request
from tests.engine.serving.world import World, served
from tests.integration.service import eventually

STREAM = "/leeway.v1.Leeway/DecideStream"
PATIENCE_S = 20.0
SILENT = 200
#: A frame of 512 bytes on the first stream, of which four come.
HALF = b"\0\2\0\0\0\0\0\0\1half"


class SlowReader(Connection):
    """Takes not a byte of any answer."""

    credit = 0


def _stream(world: World, kind: type[Connection], count: int) -> Connection:
    """Return a connection with a stream on which so many requests were sent."""
    messages = [request().SerializeToString()]
    connection = kind(Load(world.server.port, STREAM, messages, window=count, stream=True))
    connection.receive(again=False)  # the server's settings
    connection.begin()
    return connection


def _die(connection: Connection) -> None:
    """End a connection as the kernel does for a process that is killed with unread answers."""
    connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.socket.close()


@contextmanager
def _stub(world: World) -> Iterator[service_pb2_grpc.LeewayStub]:
    with open_channel(world.target, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        yield service_pb2_grpc.LeewayStub(channel)


def _streams(stub: service_pb2_grpc.LeewayStub) -> bool:
    """Whether a stream is let in and answered; it is refused while no place is free."""
    try:
        return len(list(stub.DecideStream(iter([request(), request()]), timeout=PATIENCE_S))) == 2
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
            raise
        return False


def test_a_client_that_dies_in_the_middle_of_a_stream_gives_its_place_back(tmp_path: Path) -> None:
    with served(tmp_path, streams=1) as world, _stub(world) as stub:
        for _ in range(3):
            connection = _stream(world, Connection, 8)
            while len(connection.ended) < 8:
                connection.receive(again=False)
            connection.socket.sendall(HALF)
            assert not _streams(stub), "it has the only place"
            _die(connection)
            eventually(lambda: _streams(stub), "its place to be free again", PATIENCE_S)
        for decision in world.recorder.decisions:
            assert decision.probabilities[decision.chosen] > 0.0
        eventually(lambda: world.observer.under_way == 0, "every call to have ended", PATIENCE_S)


def test_a_slow_reader_holds_up_nobody_but_itself(tmp_path: Path) -> None:
    with served(tmp_path, streams=2, workers=1) as world, _stub(world) as stub:
        slow = _stream(world, SlowReader, 512)
        for number in range(20):
            assert stub.Decide(request(f"d{number}"), timeout=PATIENCE_S).decision_id == f"d{number}"
        assert _streams(stub)
        # What it was not sent is not decided without end: no more than was asked.
        made = len(world.recorder.decisions)
        assert made <= 512 + 22
        _die(slow)
        eventually(lambda: world.observer.under_way == 0 and _streams(stub), "its calls to end", PATIENCE_S)


def test_connections_on_which_nothing_comes_keep_no_thread(tmp_path: Path) -> None:
    with served(tmp_path, workers=1, max_concurrent=2) as world, _stub(world) as stub:
        silent = [socket.create_connection(("127.0.0.1", world.server.port)) for _ in range(SILENT)]
        # The head of a call has come on these, and its message never does.
        begun = [_stream(world, Connection, 0) for _ in range(8)]
        try:
            assert stub.Decide(request("d1"), timeout=PATIENCE_S).decision_id == "d1"
        finally:
            for connection in silent:
                connection.close()
            for stream in begun:
                _die(stream)
        with closing(socket.create_connection(("127.0.0.1", world.server.port))):
            assert stub.Decide(request("d2"), timeout=PATIENCE_S).decision_id == "d2"
