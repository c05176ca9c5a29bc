"""Who may do what, over which wire, and what is never said."""

from __future__ import annotations

import logging
import subprocess
from pathlib import Path

import grpc
import pytest
from served import Caller, config, outcomes, predictions, reference_file, server_process

from tidegauge.server.config import (
    Config,
    ConfigError,
    Listen,
    ModelConfig,
    Tls,
    Token,
    config_of,
)
from tidegauge.server.security import Gate, credentials, new_token
from tidegauge.server.serve import Server
from tidegauge.v1 import admin_pb2, query_pb2


def certificate(directory: Path, name: str, *, days: int = 2, issuer: str | None = None) -> Path:
    """A certificate for localhost, its key beside it; its own authority unless one is named."""
    path = directory / f"{name}.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-subj", f"/CN={name}", "-days", str(days), "-out", path]
    command += ["-keyout", path.with_suffix(".key")]
    command += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    if issuer is not None:
        command += ["-CA", directory / f"{issuer}.pem", "-CAkey", directory / f"{issuer}.key"]
        command += ["-addext", "basicConstraints=critical,CA:FALSE"]
    subprocess.run(command, check=True, capture_output=True)
    return path


def channel_to(server: Server, authority: Path, client: Path | None = None) -> grpc.Channel:
    key = client and client.with_suffix(".key").read_bytes()
    secret = grpc.ssl_channel_credentials(
        authority.read_bytes(), key, client and client.read_bytes()
    )
    return grpc.secure_channel(f"localhost:{server.port}", secret)


def code_of(call) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code()


@pytest.fixture
def models(tmp_path: Path) -> dict[str, ModelConfig]:
    model = ModelConfig(reference_file(tmp_path))
    return {"flights": model, "other": model}


def test_tokens_have_scopes_by_model(
    tmp_path: Path, models: dict[str, ModelConfig], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    granted = {
        "writer": {"flights": ("write",)},
        "reader": {"flights": ("read",)},
        "admin": {"*": ("admin",)},
    }
    made = {name: new_token() for name in granted}
    tokens = tuple(Token(name, made[name][1], granted[name]) for name in granted)
    with Server(config(tmp_path, models=models, tokens=tokens)) as server:
        target = f"127.0.0.1:{server.port}"
        writer, reader, admin = (Caller(target, made[name][0]) for name in granted)
        denied = grpc.StatusCode.PERMISSION_DENIED
        assert writer.log(predictions(10)).outcome.accepted == 10
        assert code_of(lambda: writer.log(predictions(10), model="other")) == denied
        assert code_of(writer.account) == denied
        assert code_of(lambda: reader.log(predictions(10))) == denied
        assert reader.account()["predictions"] == 10
        assert code_of(lambda: list(reader.metrics(model="other"))) == denied
        assert admin.label(outcomes(5)).outcome.accepted == 5
        assert admin.account("other")["predictions"] == 0
        checkpoint = admin_pb2.CheckpointRequest()
        for caller in (writer, reader):
            listed = caller.admin.ListModels(
                admin_pb2.ListModelsRequest(), metadata=caller.metadata
            )
            assert [model.name for model in listed.models] == ["flights"]
            ask = caller.admin.Checkpoint
            assert code_of(lambda ask=ask, c=caller: ask(checkpoint, metadata=c.metadata)) == denied
        events = query_pb2.StreamEventsRequest(model="other")
        assert (
            code_of(lambda: list(reader.query.StreamEvents(events, metadata=reader.metadata)))
            == denied
        )
        unknown = grpc.StatusCode.UNAUTHENTICATED
        for token in (None, "", "wrong", made["writer"][1]):
            assert code_of(lambda token=token: Caller(target, token).log(predictions(1))) == unknown
    for text, _ in made.values():
        assert text not in caplog.text
        assert text not in repr(server.config)


def test_a_stranger_learns_nothing_of_models(
    tmp_path: Path, models: dict[str, ModelConfig]
) -> None:
    text, digest = new_token()
    token = Token("writer", digest, {"flights": ("write",)})
    with Server(config(tmp_path, models=models, tokens=(token,))) as server:
        caller = Caller(f"127.0.0.1:{server.port}", text)
        codes = {
            code_of(lambda name=name: caller.log(predictions(1), model=name))
            for name in ("other", "nothing")
        }
    assert codes == {grpc.StatusCode.PERMISSION_DENIED}


def test_request_ids_of_one_model_say_nothing_of_another(
    tmp_path: Path, models: dict[str, ModelConfig]
) -> None:
    with Server(config(tmp_path, models=models)) as server:
        caller = Caller(f"127.0.0.1:{server.port}")
        caller.log(predictions(10), request_id="r1")
        reply = caller.log(predictions(20), request_id="r1", model="other")
        assert (reply.outcome.accepted, reply.replayed) == (20, False)


def test_tls(tmp_path: Path, models: dict[str, ModelConfig]) -> None:
    pem = certificate(tmp_path, "server")
    other = certificate(tmp_path, "stranger")
    tls = Tls(pem, pem.with_suffix(".key"))
    with Server(config(tmp_path, models=models, tls=tls)) as server:
        caller = Caller(channel_to(server, pem))
        assert caller.log(predictions(10)).outcome.accepted == 10
        unavailable = grpc.StatusCode.UNAVAILABLE
        plain = Caller(f"127.0.0.1:{server.port}")
        assert code_of(lambda: plain.log(predictions(1))) == unavailable
        stranger = Caller(channel_to(server, other))
        assert code_of(lambda: stranger.log(predictions(1))) == unavailable


def test_clients_show_certificates(tmp_path: Path, models: dict[str, ModelConfig]) -> None:
    authority = certificate(tmp_path, "authority")
    server_pem = certificate(tmp_path, "server", issuer="authority")
    client = certificate(tmp_path, "client", issuer="authority")
    foreign = certificate(tmp_path, "foreign")
    tls = Tls(server_pem, server_pem.with_suffix(".key"), authority)
    with Server(config(tmp_path, models=models, tls=tls)) as server:
        assert Caller(channel_to(server, authority, client)).log(predictions(5)).outcome.accepted
        for wrong in (None, foreign):
            caller = Caller(channel_to(server, authority, wrong))
            assert code_of(lambda caller=caller: caller.log(predictions(1))) == (
                grpc.StatusCode.UNAVAILABLE
            )


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "192.0.2.1:7433", "example.org:80"])
def test_plain_text_does_not_leave_the_machine_by_accident(address: str) -> None:
    with pytest.raises(ConfigError, match="--insecure"):
        credentials(Config(Listen(address)))
    assert credentials(Config(Listen(address, insecure=True))) is None


@pytest.mark.parametrize("address", ["127.0.0.1:0", "[::1]:0", "localhost:0", "unix:/tmp/t.sock"])
def test_plain_text_is_allowed_within_the_machine(address: str) -> None:
    assert credentials(Config(Listen(address))) is None


def test_the_command_refuses_in_one_line(tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError, match=r"tidegauge serve: 0\.0\.0\.0:0 can be reached"),
        server_process(tmp_path, "--listen=0.0.0.0:0"),
    ):
        pass


def test_tokens_are_found_among_many() -> None:
    made = [new_token() for _ in range(20)]
    gate = Gate([Token(str(i), made[i][1], {"m": ("read",)}) for i in range(20)])
    for text, _ in made:
        gate.check(f"bearer {text}", "read", "m")
    assert gate.allows(f"Bearer {made[3][0]}", "write", "m") is False


def test_tokens_of_a_configuration_are_checked() -> None:
    line = '[[tokens]]\nname = "a"\nsha256 = "{}"\nmodels = {{ "*" = ["{}"] }}\n'
    assert config_of(line.format("0" * 64, "write")).tokens[0].models == {"*": ("write",)}
    for digest, scope, said in (
        ("x", "write", "64 hexadecimal"),
        ("0" * 64, "delete", "read, write, admin"),
    ):
        with pytest.raises(ConfigError, match=said):
            config_of(line.format(digest, scope))
    with pytest.raises(ConfigError, match="same name"):
        config_of(2 * line.format("0" * 64, "write"))
