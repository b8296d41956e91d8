"""Ports of their own for the admin service and for health, the audit log, and the warnings of open doors."""

from __future__ import annotations

import json
import logging
import stat
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pydantic import ValidationError

from engine.api.leeway.v1 import admin_pb2
from engine.channel import open_channel, tls_credentials
from engine.config import ServingConfig
from engine.serving.endpoints import warn_of_open_doors
from tests.engine.samples import NAME
from tests.engine.serving.certificates import Authority
from tests.engine.serving.world import REQUESTS, AccessFile, calling, served

OK, MISSING = grpc.StatusCode.OK, grpc.StatusCode.UNIMPLEMENTED
ADMIN = {"GetStatus", "ListPolicies"}


def test_the_admin_service_is_on_the_one_port_by_default(tmp_path: Path) -> None:
    with served(tmp_path) as world, calling(world.target) as caller:
        assert (world.server.admin_port, world.server.health_port) == (0, 0)
        assert {method: caller.code(method) for method in REQUESTS} == dict.fromkeys(REQUESTS, OK)


def test_with_a_port_of_its_own_it_is_there_alone(tmp_path: Path) -> None:
    with served(tmp_path, admin_port=0) as world:
        with calling(world.target) as caller:
            assert {m: caller.code(m) for m in REQUESTS} == {m: MISSING if m in ADMIN else OK for m in REQUESTS}
        with calling(world.admin_target) as caller:
            assert {m: caller.code(m) for m in REQUESTS} == {m: OK if m in ADMIN else MISSING for m in REQUESTS}


def test_a_port_for_health_is_in_plain_text_and_has_health_alone(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.pair("server")
    tls = {"certificate": pair.certificate, "key": pair.key, "client_ca": authority.path}
    with served(tmp_path, health_port=0, admin_port=0, tls=tls) as world:
        target = f"127.0.0.1:{world.server.health_port}"
        with open_channel(target) as channel:
            answer = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(service="leeway.v1.Leeway/offers"), timeout=20.0
            )
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with calling(target) as caller:
            assert {caller.code(method) for method in REQUESTS} == {MISSING}
        for guarded in (world.target, world.admin_target):
            with calling(guarded, None, tls_credentials(authority.path)) as caller:
                assert caller.code("GetStatus") is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"admin_host": "127.0.0.1"}, "set admin_port"),
        ({"port": 8180, "admin_port": 8180}, "must differ"),
        ({"admin_port": 8181, "health_port": 8181}, "must differ"),
        ({"tls": {"certificate": "server.pem"}}, "tls.key"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        ServingConfig.model_validate(settings)


def test_paths_are_relative_to_the_file() -> None:
    written = {"tls": {"certificate": "a.pem", "key": "/etc/b.key"}, "access_file": "access.yaml"}
    config = ServingConfig.model_validate(written).beside(Path("/etc/leeway"))
    assert config.tls is not None
    assert (config.tls.certificate, config.tls.key) == (Path("/etc/leeway/a.pem"), Path("/etc/b.key"))
    assert (config.tls.client_ca, config.audit_log) == (None, None)
    assert config.access_file == Path("/etc/leeway/access.yaml")


def test_every_admin_call_has_a_line_of_who_what_and_how_it_ended(tmp_path: Path) -> None:
    file, audit = AccessFile(tmp_path / "access.json"), tmp_path / "audit" / "admin.jsonl"
    reader, decider = file.add("reader", ["read"], [NAME]), file.add("decider", ["decide"])
    with served(tmp_path, access_file=file.path, audit_log=audit, admin_port=0) as world:
        with calling(world.admin_target, reader) as caller:
            caller.call("GetStatus")
            caller.call("ListPolicies")
            assert caller.code("ListPolicies", admin_pb2.ListPoliciesRequest(decision_point="b\n" * 9_999)) is not OK
        with calling(world.admin_target, decider) as caller:
            assert caller.code("GetStatus") is grpc.StatusCode.PERMISSION_DENIED
        with calling(world.admin_target, "leeway_secret") as caller:
            assert caller.code("GetStatus") is grpc.StatusCode.UNAUTHENTICATED
        with calling(world.target, decider) as caller:
            assert caller.code("Decide") is OK
    lines = [json.loads(line) for line in audit.read_text().splitlines()]
    assert [(line["who"], line["call"], line["point"], line["verdict"]) for line in lines] == [
        ("token reader", "GetStatus", "", "OK"),
        ("token reader", "ListPolicies", NAME, "OK"),
        ("token reader", "ListPolicies", "b\n" * 128, "PERMISSION_DENIED"),
        ("token decider", "GetStatus", "", "PERMISSION_DENIED"),
        ("", "GetStatus", "", "UNAUTHENTICATED"),
    ]
    assert {line["time"] for line in lines} == {"2026-01-01T00:00:00.000+00:00"}
    assert all(line["peer"].startswith("ipv4:127.0.0.1:") for line in lines)
    assert "leeway_secret" not in audit.read_text()
    assert stat.S_IMODE(audit.stat().st_mode) == 0o600


def test_a_call_that_fails_is_noted_with_its_code(tmp_path: Path) -> None:
    audit = tmp_path / "audit.jsonl"
    with served(tmp_path, audit_log=audit) as world, calling(world.target) as caller:
        assert caller.code("ListPolicies", admin_pb2.ListPoliciesRequest(decision_point="nowhere")) is not OK
        audit.rename(tmp_path / "audit.1")  # as a rotation of logs does
        caller.call("GetStatus")
    assert json.loads((tmp_path / "audit.1").read_text())["verdict"] == "NOT_FOUND"
    assert json.loads(audit.read_text())["verdict"] == "OK"


def test_without_a_file_lines_go_to_the_log_and_so_do_those_that_it_does_not_take(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        with served(tmp_path) as world, calling(world.target) as caller:
            caller.call("GetStatus")
        assert json.loads(caplog.records[-1].message)["call"] == "GetStatus"
        with served(tmp_path, audit_log=tmp_path) as world, calling(world.target) as caller:
            caller.call("ListPolicies")
    assert caplog.records[-1].levelno == logging.ERROR
    assert '"call": "ListPolicies"' in caplog.records[-1].message


TLS = {"certificate": "server.pem", "key": "server.key"}


@pytest.mark.parametrize(
    ("settings", "warned"),
    [
        ({}, []),
        ({"host": "localhost"}, []),
        ({"host": "::1"}, []),
        ({"host": "0.0.0.0"}, ["PLAIN TEXT", "OPEN TO ANYBODY"]),
        ({"host": "::"}, ["PLAIN TEXT", "OPEN TO ANYBODY"]),
        ({"admin_host": "10.0.0.1", "admin_port": 1}, ["PLAIN TEXT", "OPEN TO ANYBODY"]),
        ({"host": "0.0.0.0", "access_file": "access.yaml"}, ["AND TOKENS"]),
        ({"host": "0.0.0.0", "tls": TLS}, ["OPEN TO ANYBODY"]),
        ({"host": "0.0.0.0", "tls": {**TLS, "client_ca": "ca.pem"}}, []),
        ({"host": "0.0.0.0", "tls": TLS, "access_file": "access.yaml"}, []),
    ],
)
def test_open_doors_are_warned_of(
    caplog: pytest.LogCaptureFixture, settings: dict[str, Any], warned: list[str]
) -> None:
    warn_of_open_doors(ServingConfig.model_validate(settings))
    assert len(caplog.records) == len(warned)
    for record, words in zip(caplog.records, warned, strict=True):
        assert record.levelno == logging.WARNING
        assert words in record.message


def test_a_token_in_plain_text_to_another_machine_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    open_channel("127.0.0.1:1", token="leeway_x").close()
    open_channel("leeway.example.org:1").close()
    assert not caplog.records
    open_channel("leeway.example.org:1", token="leeway_x").close()
    assert "travels in plain text" in caplog.text
    assert "leeway_x" not in caplog.text
