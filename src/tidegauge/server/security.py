"""Who may do what: bearer tokens with scopes a model, and the credentials of the port."""

from __future__ import annotations

import hmac
import ipaddress
import secrets
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import grpc

from tidegauge.server.config import Config, ConfigError, Tls, Token
from tidegauge.server.refused import Refused


def new_token() -> tuple[str, str]:
    """Make a token; its text, to be given away, and its hash, to be configured.

    >>> text, digest = new_token()
    >>> sha256(text.encode()).hexdigest() == digest
    True
    """
    text = "tg_" + secrets.token_urlsafe(32)
    return text, sha256(text.encode()).hexdigest()


class Gate:
    """Lets callers by their tokens; everyone, where no token is configured.

    >>> text, digest = new_token()
    >>> gate = Gate([Token("ci", digest, {"flights": ("write",)})])
    >>> gate.check(f"Bearer {text}", "write", "flights")
    >>> gate.check(f"Bearer {text}", "read", "flights")
    Traceback (most recent call last):
    tidegauge.server.refused.Refused: token 'ci' has no scope 'read' for model 'flights'
    """

    def __init__(self, tokens: Sequence[Token]) -> None:
        self._tokens = tuple(tokens)

    def check(self, authorization: str, scope: str, model: str) -> None:
        """Refuse a caller who may not.

        Parameters
        ----------
        authorization
            What the caller says: "Bearer " and the token.
        scope
            "read", "write" or "admin"; whoever has admin has the others too.
        model
            Name of the model; "*" for what is of no single model.
        """
        if not self._tokens:
            return
        token = self._find(authorization)
        if not _allows(token, scope, model):
            raise Refused(
                "PERMISSION_DENIED",
                "SCOPE_MISSING",
                f"token {token.name!r} has no scope {scope!r} for "
                + ("every model" if model == "*" else f"model {model!r}"),
            )

    def allows(self, authorization: str, scope: str, model: str) -> bool:
        """Whether a caller whose token is known may."""
        return not self._tokens or _allows(self._find(authorization), scope, model)

    def _find(self, authorization: str) -> Token:
        kind, _, text = authorization.partition(" ")
        digest = sha256(text.strip().encode()).hexdigest()
        found = None
        for token in self._tokens:  # all of them, so that time says nothing
            if hmac.compare_digest(token.sha256, digest):
                found = token
        if found is None or kind.lower() != "bearer":
            raise Refused(
                "UNAUTHENTICATED",
                "TOKEN_WANTED",
                "a known token is wanted, as metadata `authorization: Bearer TOKEN`",
            )
        return found


def _allows(token: Token, scope: str, model: str) -> bool:
    granted = {*token.models.get("*", ()), *token.models.get(model, ())}
    return scope in granted or "admin" in granted


def is_loopback(address: str) -> bool:
    """Whether an address can be reached from this machine alone.

    >>> [is_loopback(each) for each in ("127.0.0.1:1", "[::1]:1", "unix:/tmp/s", "0.0.0.0:1")]
    [True, True, True, False]
    """
    if address.startswith("unix:"):
        return True
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_plain(address: str, *, insecure: bool) -> None:
    """Refuse to listen in plain text where others can listen too.

    >>> check_plain("127.0.0.1:7433", insecure=False)
    """
    if not is_loopback(address) and not insecure:
        raise ConfigError(
            f"{address} can be reached from elsewhere: configure [tls], or say --insecure to send "
            "tokens and data in plain text"
        )


def read_pem(tls: Tls) -> tuple[bytes, bytes, bytes | None]:
    """Read certificate, key, and the certificate of the clients' authority if there is one."""
    try:
        authority = tls.client_authority and tls.client_authority.read_bytes()
        return tls.certificate.read_bytes(), tls.key.read_bytes(), authority or None
    except OSError as error:
        raise ConfigError(f"[tls] {error.filename}: {error.strerror}") from None


def credentials(config: Config) -> Any:
    """Credentials of the port; None for plain text.

    Raises
    ------
    ConfigError
        When plain text would leave this machine without leave, or a file cannot be read.
    """
    if config.tls is None:
        check_plain(config.listen.address, insecure=config.listen.insecure)
        return None
    certificate, key, authority = read_pem(config.tls)
    return grpc.ssl_server_credentials(
        [(key, certificate)],
        root_certificates=authority,
        require_client_auth=authority is not None,
    )
