from __future__ import annotations

import pytest

from engine.client.connection import target_of


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
