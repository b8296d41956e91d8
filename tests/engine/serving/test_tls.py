"""Certificates: whom the server lets connect, and what it does when the files change."""

from __future__ import annotations

import logging
from pathlib import Path

import grpc
import pytest

from engine.channel import tls_credentials
from engine.client import LeewayClient
from engine.errors import ConfigError
from tests.engine.samples import NAME, request
from tests.engine.serving.certificates import Authority, Pair
from tests.engine.serving.world import AccessFile, calling, served

OK, UNAVAILABLE = grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE


def tls(pair: Pair, authority: Authority | None = None) -> dict[str, Path]:
    section = {"certificate": pair.certificate, "key": pair.key}
    return section if authority is None else {**section, "client_ca": authority.path}


def test_a_client_has_to_trust_the_server_and_to_speak_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    (tmp_path / "other").mkdir()
    with served(tmp_path, tls=tls(authority.pair("server"))) as world:
        for credentials, expected in (
            (tls_credentials(authority.path), OK),
            (tls_credentials(Authority(tmp_path / "other").path), UNAVAILABLE),
            (tls_credentials(), UNAVAILABLE),
            (None, UNAVAILABLE),
        ):
            with calling(world.target, None, credentials) as caller:
                assert caller.code("Decide") is expected


def test_mutual_tls_wants_a_certificate_of_its_own_authority(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    (tmp_path / "other").mkdir()
    stranger = Authority(tmp_path / "other").pair("client")
    client = authority.pair("client")
    with served(tmp_path, tls=tls(authority.pair("server"), authority)) as world:
        for pair, expected in ((client, OK), (stranger, UNAVAILABLE), (None, UNAVAILABLE)):
            mine = (None, None) if pair is None else (pair.certificate, pair.key)
            with calling(world.target, None, tls_credentials(authority.path, *mine)) as caller:
                assert caller.code("Decide") is expected
                assert caller.code("GetStatus") is expected


def test_the_client_uses_tls_and_a_token(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    mine = authority.pair("client")
    file = AccessFile(tmp_path / "access.json")
    token = file.add("shop", ["decide", "report"], [NAME])
    with served(tmp_path, tls=tls(authority.pair("server"), authority), access_file=file.path) as world:
        credentials = tls_credentials(authority.path, mine.certificate, mine.key)
        with LeewayClient(world.target, credentials=credentials, token=token, timeout_s=20.0) as client:
            made = client.decide_batch([request("d1")])
            client.report("d1", 1.0, point=NAME)
        assert len(made) == len(world.recorder.outcomes) == 1
        with LeewayClient(world.target, credentials=credentials, retry_s=0.0) as client:
            with pytest.raises(grpc.RpcError) as refused:
                client.report("d1", 1.0, point=NAME)
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_a_renewed_certificate_is_used_without_a_restart(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "next").mkdir()
    old, new = Authority(tmp_path), Authority(tmp_path / "next")
    pair = old.pair("server")
    with (
        served(tmp_path, tls=tls(pair), admin_port=0) as world,
        calling(world.target, None, tls_credentials(old.path)) as connected,
    ):
        assert connected.code("Decide") is OK
        new.pair("server").over(pair)
        with caplog.at_level(logging.INFO), calling(world.target, None, tls_credentials(new.path)) as caller:
            assert caller.code("Decide") is OK
        with calling(world.admin_target, None, tls_credentials(new.path)) as caller:
            assert caller.code("GetStatus") is OK
        with calling(world.target, None, tls_credentials(old.path)) as caller:
            assert caller.code("Decide") is UNAVAILABLE
        assert connected.code("Decide") is OK  # a connection keeps what it was made with
    assert "was read again" in caplog.text


@pytest.mark.parametrize("broken", ["no certificate", "key of another", "no file"])
def test_a_broken_renewal_leaves_the_certificate_in_use_and_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, broken: str
) -> None:
    authority = Authority(tmp_path)
    pair = authority.pair("server")
    with served(tmp_path, tls=tls(pair)) as world:
        if broken == "no certificate":
            pair.certificate.write_text("-----BEGIN CERTIFICATE-----\nnonsense\n")
        elif broken == "key of another":
            authority.pair("other").key.replace(pair.key)
        else:
            pair.certificate.unlink()
        for _ in range(2):
            with calling(world.target, None, tls_credentials(authority.path)) as caller:
                assert caller.code("Decide") is OK
        said = [record for record in caplog.records if record.levelno == logging.ERROR]
        assert len(said) == 1
        assert "the certificate before it is still in use" in said[0].message
        authority.pair("renewed").over(pair)
        with caplog.at_level(logging.INFO), calling(world.target, None, tls_credentials(authority.path)) as caller:
            assert caller.code("Decide") is OK
    assert caplog.text.count("was read again") == 1


def test_a_new_authority_of_clients_is_in_force_for_the_next_connection(tmp_path: Path) -> None:
    (tmp_path / "next").mkdir()
    old, new = Authority(tmp_path), Authority(tmp_path / "next")
    before, after = old.pair("client"), new.pair("client")
    clients = tmp_path / "clients.pem"
    clients.write_bytes(old.path.read_bytes())
    with served(tmp_path, tls={**tls(old.pair("server")), "client_ca": clients}) as world:
        clients.write_bytes(new.path.read_bytes())
        for pair, expected in ((after, OK), (before, UNAVAILABLE)):
            with calling(world.target, None, tls_credentials(old.path, pair.certificate, pair.key)) as caller:
                assert caller.code("Decide") is expected


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda pair, directory: pair.key.unlink(), "serving.tls.key: .* cannot be read"),
        (lambda pair, directory: pair.key.write_text("nonsense"), "no certificate and its key"),
        (lambda pair, directory: (directory / "ca.pem").write_text("nonsense"), "serving.tls.client_ca: .* holds no"),
    ],
)
def test_a_server_does_not_start_with_files_that_it_cannot_use(tmp_path: Path, spoil: object, words: str) -> None:
    authority = Authority(tmp_path)
    pair = authority.pair("server")
    (tmp_path / "ca.pem").write_bytes(authority.path.read_bytes())
    assert callable(spoil)
    spoil(pair, tmp_path)
    with (
        pytest.raises(ConfigError, match=words),
        served(tmp_path, tls={**tls(pair), "client_ca": tmp_path / "ca.pem"}),
    ):
        pass


def test_an_encrypted_key_is_refused_and_nobody_is_asked_for_its_password(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    authority = Authority(tmp_path)
    pair = authority.pair("server")
    key = serialization.load_pem_private_key(pair.key.read_bytes(), None)
    pair.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(ConfigError, match="the key is encrypted"), served(tmp_path, tls=tls(pair)):
        pass


def test_a_client_gives_both_files_or_none(tmp_path: Path) -> None:
    pair = Authority(tmp_path).pair("client")
    with pytest.raises(ConfigError, match="go together"):
        tls_credentials(None, pair.certificate, None)
    with pytest.raises(ConfigError, match="cannot be read"):
        tls_credentials(tmp_path / "none.pem")
