"""A real `leeway serve` with TLS, tokens and an admin port, as docs/security.md sets it up."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
import yaml

from engine.channel import tls_credentials
from engine.client import LeewayClient
from engine.config import TLSConfig
from engine.serving.tls import ServerCertificate
from tests.engine.serving.certificates import Authority
from tests.integration.service import ACTIONS, CONTEXT, OFFERS, Service, leeway, running, settings


class Secured:
    """The service, its files, and a token for each kind of caller."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority = Authority(directory)
        self.server = self.authority.pair("server")
        self.mine = self.authority.pair("client")
        self.tokens: dict[str, str] = {}
        entries = []
        for name, options in {
            "shop": ("--scope", "decide", "--scope", "report", "--point", "offers"),
            "operator": ("--scope", "admin"),
            "guest": ("--scope", "read", "--point", "banners", "--expires-in", "90d"),
        }.items():
            made = leeway("token", "create", name, *options)
            assert made.returncode == 0, made.stderr
            self.tokens[name], _, entry = made.stdout.partition("\n")
            entries += yaml.safe_load(entry)
        (directory / "access.yaml").write_text(yaml.safe_dump({"tokens": entries}))

    def config(self) -> dict[str, object]:
        tls = {"certificate": "server.pem", "key": "server.key", "client_ca": self.authority.path.name}
        more = {"tls": tls, "access_file": "access.yaml", "admin_port": 0, "audit_log": "audit.jsonl"}
        return settings({"offers": OFFERS, "banners": {}}, **more)

    def status(self, service: Service, token: str, *options: str | Path) -> tuple[int, str, str]:
        mutual = ("--ca", self.authority.path, "--certificate", self.mine.certificate, "--key", self.mine.key)
        done = leeway(
            "status", "--config", service.path, *mutual, *options, env={"LEEWAY_TOKEN": self.tokens.get(token, token)}
        )
        return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Secured:
    return Secured(tmp_path_factory.mktemp("secured"))


@pytest.fixture(scope="module")
def service(secured: Secured) -> Iterator[Service]:
    with running(secured.directory, secured.config(), "serve") as service:
        yield service


def test_the_client_decides_and_reports_with_certificate_and_token(secured: Secured, service: Service) -> None:
    credentials = tls_credentials(secured.authority.path, secured.mine.certificate, secured.mine.key)
    with LeewayClient(service.target, credentials=credentials, token=secured.tokens["shop"], timeout_s=10.0) as client:
        made = client.decide("offers", CONTEXT, ACTIONS)
        client.report(made.decision_id, 1.0, point="offers")
        with pytest.raises(grpc.RpcError) as refused:
            client.decide("banners", {}, ["a"])
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert [decision.decision_id for decision in service.decisions()] == [made.decision_id]


def test_status_goes_to_the_admin_port_and_says_why_it_may_not(secured: Secured, service: Service) -> None:
    code, said, _ = secured.status(service, "operator")
    assert code == 0
    assert "offers (bandit)" in said
    assert "banners (bandit)" in said
    code, said, _ = secured.status(service, "guest")
    assert code == 0
    assert "offers" not in said
    assert "banners (bandit)" in said
    code, _, error = secured.status(service, "shop")
    assert (code, "lacks the scope 'read'" in error) == (1, True)
    code, _, error = secured.status(service, "leeway_wrong")
    assert (code, "not known here" in error) == (1, True)
    token_file = secured.directory / "token"
    token_file.write_text(secured.tokens["operator"] + "\n")
    code, _, error = secured.status(service, "leeway_wrong", "--token-file", token_file)
    assert code == 0, error
    lines = [json.loads(line) for line in (secured.directory / "audit.jsonl").read_text().splitlines()]
    assert [(line["who"], line["verdict"]) for line in lines] == [
        ("token operator", "OK"),
        ("token guest", "OK"),
        ("token shop", "PERMISSION_DENIED"),
        ("", "UNAUTHENTICATED"),
        ("token operator", "OK"),
    ]


def test_check_says_who_may_call_and_create_refuses_what_is_no_entry(secured: Secured) -> None:
    listed = leeway("token", "check", secured.directory / "access.yaml")
    assert listed.returncode == 0
    assert listed.stdout.splitlines()[:2] == [
        "token shop: decide, report; points: offers",
        "token operator: admin, read; points: all",
    ]
    assert listed.stdout.splitlines()[2].startswith("token guest: read; points: banners; until 20")
    broken = secured.directory / "broken.yaml"
    broken.write_text("tokens: [{name: shop}]")
    refused = leeway("token", "check", broken)
    assert refused.returncode == 2
    assert "tokens.0.hash: Field required" in refused.stderr
    assert leeway("token", "create", "two words", "--scope", "read").returncode == 2
    as_json = json.loads(leeway("token", "create", "shop", "--scope", "read", "--json").stdout)
    assert as_json["entry"]["points"] == "all"
    assert as_json["token"] not in json.dumps(as_json["entry"])


def test_the_documented_commands_of_openssl_make_what_is_needed(tmp_path: Path) -> None:
    """docs/security.md makes certificates by openssl, which may not be on every machine."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    text = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
    (commands,) = [block.partition("```")[0] for block in text.split("```sh\n")[1:] if "openssl req" in block]
    subprocess.run(["sh", "-eu", "-c", commands], cwd=tmp_path, env=dict(os.environ), check=True, capture_output=True)
    config = TLSConfig(certificate=Path("server.pem"), key=Path("server.key"), client_ca=Path("ca.pem"))
    ServerCertificate(config.beside(tmp_path)).credentials()
