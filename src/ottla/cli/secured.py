"""TLS and a login on a direct connection, as librdkafka's properties ask for them."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable, Mapping
from typing import Any

from ottla.cli.client_properties import BY_TOKEN
from ottla.cli.errors import CliError, ExitCode
from ottla.errors import ErrorCode
from ottla.security.sasl.client import BY_PASSWORD, ClientExchange, ServerRefused, log_in_as
from ottla.security.secret import Secret

PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
# What a request of the login is asked by: the name, the version, the fields.
Ask = Callable[[str, int, Mapping[str, Any]], Any]


class Security:
    """How to come in. ``properties`` are librdkafka's; CliError (usage) where they cannot be followed."""

    def __init__(self, properties: Mapping[str, str]) -> None:
        self._get = properties.get
        self._protocol = properties.get("security.protocol", "PLAINTEXT").upper()
        if self._protocol not in PROTOCOLS:
            raise CliError(f"-X security.protocol: give one of {', '.join(PROTOCOLS)}", ExitCode.USAGE)
        self._mechanism = properties.get("sasl.mechanisms", "").upper()
        if self.logs_in and self._mechanism not in BY_PASSWORD:
            raise CliError(
                f"-X sasl.mechanisms: this command logs in by {', '.join(BY_PASSWORD)}", ExitCode.USAGE
            )
        self._context = self._make_context() if self._protocol.endswith("SSL") else None

    @property
    def logs_in(self) -> bool:
        """Whether a login comes first."""
        return self._protocol.startswith("SASL")

    def wrap(self, connected: socket.socket, host: str) -> socket.socket:
        """Speak TLS on a connection, where that is asked for. OSError where the handshake fails."""
        return (
            connected if self._context is None else self._context.wrap_socket(connected, server_hostname=host)
        )

    def log_in(self, ask: Ask) -> None:
        """Log in. CliError where the broker refuses."""
        exchange = self._exchange()
        handshake = ask("SaslHandshake", 1, {"mechanism": exchange.mechanism})
        if handshake.error_code != ErrorCode.none:
            known = ", ".join(handshake.mechanisms)
            raise CliError(f"the broker does not take {exchange.mechanism}, but {known} (-X sasl.mechanisms)")
        try:
            token = exchange.start()
            while not exchange.is_complete:
                answer = ask("SaslAuthenticate", 1, {"auth_bytes": token})
                if answer.error_code != ErrorCode.none:
                    raise CliError(f"the login was refused: {answer.error_message}")
                token = exchange.respond(bytes(answer.auth_bytes))
        except ServerRefused as error:
            raise CliError(f"the login failed: {error}") from None

    def _exchange(self) -> ClientExchange:
        name, password = self._get("sasl.username", ""), Secret(self._get("sasl.password", ""))
        by_token = self._get(BY_TOKEN) == "true"
        return log_in_as(self._mechanism, name, password, os.urandom, by_token=by_token)

    def _make_context(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(
                cafile=self._get("ssl.ca.location"), cadata=self._get("ssl.ca.pem")
            )
            # No more than librdkafka asks for, which makes the other connections.
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
            own = self._get("ssl.certificate.location")
            if own is not None:
                context.load_cert_chain(own, self._get("ssl.key.location"), self._get("ssl.key.password"))
        except (OSError, ValueError) as error:
            raise CliError(f"-X ssl.…: {error}", ExitCode.USAGE) from None
        if self._get("ssl.endpoint.identification.algorithm", "https") == "none":
            context.check_hostname = False
        if self._get("enable.ssl.certificate.verification", "true").lower() == "false":
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context
