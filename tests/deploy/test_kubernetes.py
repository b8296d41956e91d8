"""The manifests: what kustomize makes of them, held to the published schemas and to the commands of Leeway."""

from __future__ import annotations

import json
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.cluster.topology import ROLES
from deploy.rules import RULES, TARGET, prometheus_rule
from engine import __version__
from engine.serving.server import SERVICE
from streaming.config import Config, load_config
from tests.deploy.conftest import ROOT

KUBERNETES = ROOT / "deploy" / "kubernetes"
OVERLAYS = ("base", "overlays/small", "overlays/production")
#: The oldest and the newest version that the manifests are held to: three supported ones and more.
VERSIONS = ("1.31", "1.37")
OPERATOR = "monitoring.coreos.com/v1"
CHECK = """
import * as v1 from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1";
import { readFileSync } from "node:fs";
for (const object of JSON.parse(readFileSync(0, "utf8"))) new v1[object.kind](object).validate();
"""


@cache
def built(overlay: str) -> str:
    """Return what kustomize makes, or skip the test where there is none."""
    for program, *words in (("kustomize", "build"), ("kubectl", "kustomize")):
        if shutil.which(program):
            done = subprocess.run(
                [program, *words, str(KUBERNETES / overlay)], capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr
            return done.stdout
    pytest.skip("neither kustomize nor kubectl is installed, so the manifests are not put together")


@cache
def objects(overlay: str) -> tuple[dict[str, Any], ...]:
    return tuple(yaml.safe_load_all(built(overlay)))


def of_kind(overlay: str, kind: str) -> dict[str, dict[str, Any]]:
    return {made["metadata"]["name"]: made for made in objects(overlay) if made["kind"] == kind}


def pods(overlay: str) -> dict[str, dict[str, Any]]:
    """Return the pod template of every workload."""
    found = {name: made["spec"]["template"] for name, made in of_kind(overlay, "StatefulSet").items()}
    for name, made in of_kind(overlay, "CronJob").items():
        found[name] = made["spec"]["jobTemplate"]["spec"]["template"]
    return found


def configuration(overlay: str, tmp_path: Path) -> Config:
    (made,) = of_kind(overlay, "ConfigMap").values()
    path = tmp_path / "leeway.yaml"
    path.write_text(made["data"]["leeway.yaml"])
    return load_config(path, {})


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("version", VERSIONS)
def test_the_manifests_are_what_kubernetes_allows(
    overlay: str, version: str, release_tools: Path, tmp_path: Path
) -> None:
    path = tmp_path / "manifests.yaml"
    ours = [made for made in objects(overlay) if made["apiVersion"] != OPERATOR]
    wrong = [{**made, "spec": {**made["spec"], "replikas": 1}} for made in ours if made["kind"] == "StatefulSet"][:1]
    for manifests, status in ((ours, 0), (wrong, 1)):
        path.write_text(yaml.safe_dump_all(manifests))
        command: list[str | Path] = [
            release_tools / "kubernetes-validate",
            "--strict",
            "--kubernetes-version",
            version,
            path,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode != 0) == bool(status), done.stdout + done.stderr
        assert status or done.stdout.count(" passed ") == len(ours)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_operator_would_take_its_objects(node_modules: Path) -> None:
    (node_modules.parent / "check.mjs").write_text(CHECK)
    mine = [made for made in objects("overlays/production") if made["apiVersion"] == OPERATOR]
    assert {made["kind"] for made in mine} == {"ServiceMonitor", "PrometheusRule"}
    monitor = next(made for made in mine if made["kind"] == "ServiceMonitor")
    wrong = {**monitor, "spec": {**monitor["spec"], "endpoints": "metrics"}}
    for manifests, status in ((mine, 0), ([wrong], 1)):
        done = subprocess.run(
            ["node", "check.mjs"],
            input=json.dumps(manifests),
            cwd=node_modules.parent,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == status, done.stderr


def test_each_role_runs_the_command_that_the_cluster_without_containers_runs() -> None:
    for overlay in OVERLAYS:
        made = of_kind(overlay, "StatefulSet")
        commands = {name: s["spec"]["template"]["spec"]["containers"][0]["command"] for name, s in made.items()}
        assert commands == {f"leeway-{role}": list(command) for role, command in ROLES.items()}
        assert made["leeway-work"]["spec"]["replicas"] == 1  # a second one would share the feedback with it


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_selector_finds_pods(overlay: str) -> None:
    labels = [pod["metadata"]["labels"] for pod in pods(overlay).values()]
    wanted: list[tuple[str, dict[str, str]]] = []
    for made in objects(overlay):
        spec = made.get("spec", {})
        match made["kind"]:
            case "Service":
                wanted.append((made["metadata"]["name"], spec["selector"]))
            case "StatefulSet" | "PodDisruptionBudget":
                wanted.append((made["metadata"]["name"], spec["selector"]["matchLabels"]))
            case "NetworkPolicy":
                wanted.append((made["metadata"]["name"], spec["podSelector"]["matchLabels"]))
    assert len(wanted) >= 10
    for name, selector in wanted:
        assert any(selector.items() <= each.items() for each in labels), name
    # Names are asked of pods that are not ours: a label of ours among theirs would find none.
    names = next(
        rule for rule in of_kind(overlay, "NetworkPolicy")["leeway"]["spec"]["egress"] if rule["ports"][0]["port"] == 53
    )
    assert names["to"][0]["podSelector"]["matchLabels"] == {"k8s-app": "kube-dns"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_ports_are_those_of_the_configuration(overlay: str, tmp_path: Path) -> None:
    config = configuration(overlay, tmp_path)
    metrics = {
        "leeway-serve": config.metrics.serving_port,
        "leeway-work": config.metrics.pipeline_port,
        "leeway-join": config.metrics.join_port,
    }
    for name, port in metrics.items():
        container = pods(overlay)[name]["spec"]["containers"][0]
        assert {p["name"]: p["containerPort"] for p in container["ports"]}["metrics"] == port
    services = of_kind(overlay, "Service")
    assert {p["port"] for s in services.values() for p in s["spec"]["ports"] if p["name"] == "metrics"} == set(
        metrics.values()
    )
    assert services["leeway"]["spec"]["ports"][0]["port"] == config.serving.port
    policies = of_kind(overlay, "NetworkPolicy")
    scraped = {p["port"] for p in policies["leeway"]["spec"]["ingress"][0]["ports"]}
    assert scraped == set(metrics.values())
    assert policies["leeway-serve"]["spec"]["ingress"][0]["ports"][0]["port"] == config.serving.port
    assert config.serving.host == config.metrics.host == "0.0.0.0"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_serving_is_probed_drained_and_spread(overlay: str, tmp_path: Path) -> None:
    serving = configuration(overlay, tmp_path).serving
    spec = pods(overlay)["leeway-serve"]["spec"]
    container = spec["containers"][0]
    assert container["readinessProbe"]["grpc"] == {"port": serving.port, "service": SERVICE}
    # Alive while it drains: its own service says so, that of readiness does not.
    assert container["livenessProbe"]["grpc"] == {"port": serving.port}
    seconds = (serving.drain + serving.drain_grace) / 1_000 + 5  # the last shipping
    assert spec["terminationGracePeriodSeconds"] > seconds
    assert {each["topologyKey"] for each in spec["topologySpreadConstraints"]} == {
        "topology.kubernetes.io/zone",
        "kubernetes.io/hostname",
    }
    scaler = of_kind(overlay, "HorizontalPodAutoscaler")["leeway-serve"]["spec"]
    assert scaler["scaleTargetRef"]["name"] in of_kind(overlay, "StatefulSet")
    assert 2 <= scaler["minReplicas"] < scaler["maxReplicas"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_keep_to_the_restricted_standard_and_know_where_to_write(overlay: str, tmp_path: Path) -> None:
    data_dir = str(configuration(overlay, tmp_path).data_dir)
    for name, pod in pods(overlay).items():
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["automountServiceAccountToken"] is False, name
        (container,) = spec["containers"]
        assert container["image"] == f"leeway:{__version__}"
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        mounted = {each["mountPath"] for each in container["volumeMounts"]}
        assert {data_dir, "/tmp", "/etc/leeway"} <= mounted, name
        assert "memory" in container["resources"]["limits"], name
    serving = pods(overlay)["leeway-serve"]["spec"]["containers"][0]["volumeMounts"]
    shared = next(each for each in serving if each["mountPath"] == f"{data_dir}/policies")
    assert (shared["name"], shared["subPath"]) == ("data", "policies")


def test_members_of_the_join_have_names_that_outlive_them() -> None:
    (container,) = pods("base")["leeway-join"]["spec"]["containers"]
    (variable,) = container["env"]
    assert variable["name"] == "LEEWAY_LOG__INSTANCE_ID"
    assert variable["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"
    kept = [each["name"] for each in pods("overlays/small")["leeway-join"]["spec"]["containers"][0]["env"]]
    assert set(kept) == {"LEEWAY_LOG__INSTANCE_ID", "LEEWAY_LOG__REPLICATION_FACTOR", "LEEWAY_LOG__MIN_INSYNC_REPLICAS"}


def test_every_role_is_scraped() -> None:
    monitor = of_kind("overlays/production", "ServiceMonitor")["leeway"]["spec"]
    (endpoint,) = monitor["endpoints"]
    scraped = {
        made["spec"]["selector"]["app.kubernetes.io/component"]
        for made in of_kind("overlays/production", "Service").values()
        if monitor["selector"]["matchLabels"].items() <= made["metadata"]["labels"].items()
        and endpoint["port"] in {port["name"] for port in made["spec"]["ports"]}
    }
    assert scraped == set(ROLES)


def test_the_rules_are_those_of_prometheus() -> None:
    if not RULES.exists():
        pytest.skip(f"{RULES} is not there, so there are no rules to compare with")
    assert yaml.safe_load(TARGET.read_text()) == prometheus_rule(), "run: python -m deploy.rules"
