from __future__ import annotations

import grpc
import pytest

from engine.client import LeewayClient
from engine.client.connection import OPTIONS, options_of, target_of


@pytest.mark.parametrize(
    ("addresses", "target"),
    [
        ("leeway:8180", "leeway:8180"),
        ("dns:///leeway.internal:8180", "dns:///leeway.internal:8180"),
        (["leeway:8180"], "leeway:8180"),
        (["127.0.0.1:1", "127.0.0.2:2"], "ipv4:127.0.0.1:1,127.0.0.2:2"),
        (["[::1]:1", "[::2]:2"], "ipv6:[::1]:1,[::2]:2"),
    ],
)
def test_addresses_become_a_target(addresses: str | list[str], target: str) -> None:
    assert target_of(addresses) == target


@pytest.mark.parametrize(
    ("addresses", "words"),
    [
        ([], "no address"),
        (["a:1", "10.0.0.1:2"], "'a:1' is no IP address .* dns:///name:port"),
        (["10.0.0.1", "10.0.0.2:1"], "'10.0.0.1' is no IP address with a port"),
        (["10.0.0.1:1", "[::1]:1"], "both families"),
    ],
)
def test_what_grpc_could_not_take_is_refused(addresses: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        target_of(addresses)


def test_channels_of_their_own_have_connections_of_their_own() -> None:
    assert options_of(1) == OPTIONS
    assert ("grpc.use_local_subchannel_pool", 1) in options_of(2)
    with pytest.raises(ValueError, match="channels is 0; a client needs at least 1"):
        options_of(0)


def test_a_channel_and_a_number_of_them_exclude_each_other() -> None:
    with grpc.insecure_channel("localhost:1") as channel, pytest.raises(ValueError, match="choose one"):
        LeewayClient("", channel=channel, channels=2)
