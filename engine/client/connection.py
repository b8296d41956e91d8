"""Where a client connects to, and how calls are spread over several servers."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Sequence

#: Each call goes to the next server that is connected; a name is resolved to all of its addresses.
_SERVICE_CONFIG = json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})

OPTIONS: tuple[tuple[str, int | str], ...] = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.service_config", _SERVICE_CONFIG),
    # What is repeated, and when, is decided in one place: grpcio would repeat calls behind it.
    ("grpc.enable_retries", 0),
)


def options_of(channels: int) -> tuple[tuple[str, int | str], ...]:
    """Return the options of each of a client's channels; raises ``ValueError`` for less than one.

    Channels of one process with the same target and options share a connection, unless each has subchannels to itself.
    """
    if channels < 1:
        raise ValueError(f"channels is {channels}; a client needs at least 1")
    return OPTIONS if channels == 1 else (*OPTIONS, ("grpc.use_local_subchannel_pool", 1))


def target_of(addresses: str | Sequence[str]) -> str:
    """Return the target of a channel.

    Parameters
    ----------
    addresses
        ``host:port``; or any target that gRPC knows, such as ``dns:///leeway.internal:8180`` for a name with several
        addresses; or a list of IP addresses with ports.

    Raises
    ------
    ValueError
        For a list that gRPC cannot take: empty, with names in it, or of both families.

    Examples
    --------
    >>> target_of(["10.0.0.1:8180", "10.0.0.2:8180"])
    'ipv4:10.0.0.1:8180,10.0.0.2:8180'
    >>> target_of(["[::1]:8180"])
    'ipv6:[::1]:8180'
    """
    if isinstance(addresses, str):
        return addresses
    if not addresses:
        raise ValueError("no address is given; give at least one host:port")
    if len(addresses) == 1 and _family(addresses[0]) is None:
        return addresses[0]
    families = {_family(address) for address in addresses}
    if None in families:
        wrong = next(address for address in addresses if _family(address) is None)
        raise ValueError(
            f"{wrong!r} is no IP address with a port; in a list only such are taken: "
            "give one name with several addresses as dns:///name:port"
        )
    if len(families) > 1:
        raise ValueError(f"{', '.join(addresses)} are of both families; give IPv4 or IPv6 addresses alone")
    return f"ipv{families.pop()}:{','.join(addresses)}"


def _family(address: str) -> int | None:
    host, _, port = address.rpartition(":")
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]")).version if port.isdigit() else None
    except ValueError:
        return None
