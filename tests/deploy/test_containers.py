"""The image and compose.yaml: nothing here runs a container, so what can be known without one is checked."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest
import yaml

from deploy.cluster.topology import ROLES
from engine import __version__
from engine.serving.server import SERVICE
from streaming.cli import main
from streaming.config import load_config
from tests.deploy.conftest import ROOT

DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return found


def instructions(stage: int) -> list[tuple[str, str]]:
    """Return the instructions of a stage of the Dockerfile, continued lines put together."""
    text = re.sub(r"\\\n", " ", "\n".join(line for line in DOCKERFILE.splitlines() if not line.startswith("#")))
    stages = re.split(r"^(?=FROM )", text, flags=re.MULTILINE)[1:]
    return [
        (word, rest) for word, _, rest in (line.partition(" ") for line in stages[stage].splitlines()) if word.isupper()
    ]


def bound(service: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what a service mounts: source and place."""
    return [(source, place) for source, place, *_ in (volume.split(":") for volume in service.get("volumes", []))]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_compose_is_what_its_specification_allows(compose_schema: Mapping[str, Any]) -> None:
    jsonschema.Draft7Validator(compose_schema).validate(compose())
    wrong = compose()
    wrong["services"]["join"]["healtcheck"] = {}
    with pytest.raises(jsonschema.ValidationError, match="healtcheck"):
        jsonschema.Draft7Validator(compose_schema).validate(wrong)


def test_each_role_runs_the_command_that_the_cluster_without_containers_runs() -> None:
    services = {
        name: tuple(s["command"]) for name, s in compose()["services"].items() if s.get("command", [""])[0] == "leeway"
    }
    retrain = services.pop("retrain")
    assert {name.partition("-")[0]: command for name, command in services.items()} == ROLES
    assert sum(name.startswith("serve") for name in services) == 2
    context = click.Context(main.commands["retrain"])
    main.commands["retrain"].parse_args(context, list(retrain[2:]))
    assert context.params["point"] == "offers"


def test_the_configuration_is_good_and_is_reached_from_other_containers() -> None:
    config = load_config(DEPLOY / "compose" / "leeway.yaml", {})
    services = compose()["services"]
    assert config.log_facts()["address"] == "kafka://kafka:9092"
    assert "kafka" in services
    assert config.tracking_uri.partition("//")[2].partition(":")[0] in services
    assert config.serving.host == config.metrics.host == "0.0.0.0"
    assert str(config.data_dir) == "/var/lib/leeway"
    assert "offers" in config.decision_points
    # What a role writes must outlive its container, and the policies are those of `work`.
    for name in ("serve-1", "serve-2", "work", "retrain"):
        mounted = {place: source for source, place in bound(services[name])}
        assert mounted["/var/lib/leeway/policies"] == "policies"
        assert mounted["/var/lib/leeway"] == ("work" if name == "retrain" else name)
        assert mounted["/etc/leeway/leeway.yaml"] == "./compose/leeway.yaml"


def test_a_container_is_given_time_to_drain() -> None:
    serving = load_config(DEPLOY / "compose" / "leeway.yaml", {}).serving
    needed = (serving.drain + serving.drain_grace) / 1_000 + 5  # the last shipping
    for name, service in compose()["services"].items():
        if name in ("serve-1", "serve-2", "join", "work"):
            assert float(service["stop_grace_period"].removesuffix("s")) >= needed


def test_every_file_and_volume_that_is_mounted_exists() -> None:
    written_elsewhere = {"./prometheus/rules", "./grafana/provisioning", "./grafana/dashboards"}
    for name, service in compose()["services"].items():
        for source, _ in bound(service):
            if source.startswith("."):
                assert (DEPLOY / source).exists() or source in written_elsewhere, f"{name}: {source}"
            else:
                assert source in compose()["volumes"], f"{name}: {source}"


def test_nothing_runs_as_root_or_writes_to_its_root() -> None:
    final = instructions(-1)
    user = [rest for word, rest in final if word == "USER"]
    assert user == ["10001:10001"]
    assert [word for word, _ in final].index("USER") > [word for word, _ in final].index("RUN")
    for name, service in compose()["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        if name != "kafka":  # writes its own configuration at the start
            assert service["read_only"] is True, name
    published = [port for service in compose()["services"].values() for port in service.get("ports", [])]
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_the_image_is_built_from_files_that_there_are() -> None:
    ignore = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    allowed = {line.removeprefix("!") for line in ignore if line.startswith("!")}
    copied = {
        source
        for stage in (0, -1)
        for word, rest in instructions(stage)
        if word == "COPY" and "--from" not in rest
        for source in rest.split()[:-1]
    }
    assert copied
    assert all((ROOT / source).exists() for source in copied)
    assert copied == allowed


def test_the_health_check_asks_what_is_there() -> None:
    from deploy import health

    assert health.READY == SERVICE
    commands = [s["healthcheck"]["test"] for s in compose()["services"].values() if "test" in s.get("healthcheck", {})]
    ours = [command[2:] for command in commands if "/opt/leeway/health.py" in command]
    config = load_config(DEPLOY / "compose" / "leeway.yaml", {})
    ports = {config.metrics.join_port, config.metrics.pipeline_port}
    assert {int(command[2].rpartition(":")[2].partition("/")[0]) for command in ours} == ports
    assert "COPY deploy/health.py /opt/leeway/health.py" in DOCKERFILE
    exposed = next(rest for word, rest in instructions(-1) if word == "EXPOSE").split()
    assert set(map(int, exposed)) == ports | {config.serving.port, config.metrics.serving_port}


def test_versions_are_those_of_the_project() -> None:
    images = {name: service["image"] for name, service in compose()["services"].items()}
    assert {image for image in images.values() if image.startswith("leeway:")} == {f"leeway:{__version__}"}
    pom = ElementTree.parse(DEPLOY / "kafka" / "pom.xml")
    kafka = pom.findtext(".//{*}kafka.version")
    assert images["kafka"] == f"apache/kafka:{kafka}"
    assert f"leeway:{__version__}" in DOCKERFILE
    assert all(":" in image and not image.endswith(":latest") for image in images.values())


def test_prometheus_looks_where_the_roles_show_their_metrics() -> None:
    scrape = yaml.safe_load((DEPLOY / "compose" / "prometheus.yml").read_text())["scrape_configs"]
    config = load_config(DEPLOY / "compose" / "leeway.yaml", {})
    ports = {
        "serve": config.metrics.serving_port,
        "work": config.metrics.pipeline_port,
        "join": config.metrics.join_port,
    }
    found = {name: entry["port"] for job in scrape for entry in job["dns_sd_configs"] for name in entry["names"]}
    assert [job["job_name"] for job in scrape] == ["leeway-serve", "leeway-work", "leeway-join"]
    assert all(
        job.keys() == {"job_name", "dns_sd_configs"} for job in scrape
    )  # a label `role` would hide the metrics' own
    assert {name: ports[name.partition("-")[0]] for name in found} == found
    assert set(found) == {"serve-1", "serve-2", "join", "work"}
    assert found.keys() <= compose()["services"].keys()


def test_the_base_image_has_the_python_that_the_project_needs() -> None:
    assert re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE) == ["python:3.11-slim-bookworm"] * 2


@pytest.mark.parametrize("place", [Path("compose/leeway.yaml"), Path("kubernetes/base/leeway.yaml")])
def test_a_setting_of_the_environment_goes_over_that_of_the_file(place: Path) -> None:
    config = load_config(DEPLOY / place, {"LEEWAY_DATA_DIR": "/elsewhere", "LEEWAY_LOG__INSTANCE_ID": "leeway-join-0"})
    assert str(config.data_dir) == "/elsewhere"
    assert getattr(config.log, "instance_id", None) == "leeway-join-0"
