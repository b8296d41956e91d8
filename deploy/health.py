"""Whether a process of Leeway is well: the health check of the container image, which needs no shell.

``python health.py grpc HOST:PORT`` asks the gRPC health service of ``leeway serve`` whether it is ready.
``python health.py roles http://HOST:PORT/metrics`` asks ``leeway work`` or ``leeway join`` whether its roles work.
Exit status 0: well, 1: not, with the reason on standard error.
"""

from __future__ import annotations

import sys
import urllib.request

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

READY = "leeway.v1.Leeway"
PATIENCE_S = 3.0


def serving(target: str) -> str:
    """Return why a server is not ready for requests; empty where it is."""
    with grpc.insecure_channel(target) as channel:
        try:
            request = health_pb2.HealthCheckRequest(service=READY)
            status = health_pb2_grpc.HealthStub(channel).Check(request, timeout=PATIENCE_S).status
        except grpc.RpcError as error:
            return f"{target} does not answer: {error.details()}"
    name = health_pb2.HealthCheckResponse.ServingStatus.Name(status)
    return "" if name == "SERVING" else f"{target} is {name}"


def samples(url: str, name: str) -> dict[str, float]:
    """Return the samples of a metric, by the values of their labels; raises ``OSError`` where nobody answers."""
    with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
        text = answer.read().decode()
    return {
        ",".join(sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    }


def roles(url: str) -> str:
    """Return which roles of a process do not work; empty where all do."""
    try:
        up = samples(url, "leeway_role_up")
    except OSError as error:
        return f"{url} does not answer: {error}"
    down = [role for role, value in up.items() if value != 1.0]
    if not up:
        return f"{url} shows no role"
    return f"not at work: {', '.join(down)}" if down else ""


def main(arguments: list[str]) -> int:
    """Check what the command line says, and return the exit status."""
    checks = {"grpc": serving, "roles": roles}
    if len(arguments) != 2 or arguments[0] not in checks:
        print(__doc__, file=sys.stderr)
        return 2
    problem = checks[arguments[0]](arguments[1])
    if problem:
        print(problem, file=sys.stderr)
    return int(bool(problem))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
