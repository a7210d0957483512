"""Requests over plain connections, for what librdkafka cannot ask.

One request at a time on each connection. A broker that goes away, or hangs, costs another attempt at another
broker, within a time limit; so what is asked must be the same when it is asked twice.
"""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ottla.cli.client import NO_RIGHT, parse_bootstrap
from ottla.cli.client_properties import client_properties
from ottla.cli.errors import CliError, DeniedError, ExitCode
from ottla.cli.rights import KINDS, Right
from ottla.errors import ErrorCode
from ottla.wire.apis import BY_NAME, Api
from ottla.wire.messages import MalformedMessage, decode_response, frame_request, response_header_flexible

if TYPE_CHECKING:
    from ottla.cli.secured import Security

CLIENT_ID = "ottla"
CONNECT_TIMEOUT_S = 4.0
REQUEST_TIMEOUT_S = 30.0
# What only reads is answered at once, by any broker: one that hangs is passed over.
READS = {"ApiVersions", "DescribeCluster", "DescribeConfigs", "DescribeLogDirs", "Metadata"}
READS |= {"ListPartitionReassignments", "DescribeProducers", "DescribeTransactions", "ListTransactions"}
READS |= {"DescribeAcls", "DescribeClientQuotas", "DescribeUserScramCredentials", "DescribeDelegationToken"}
READ_TIMEOUT_S = 3.0
# How long another broker is looked for where one does not answer.
RETRY_S = 15.0
RETRY_STEP_S = 0.25
RESPONSE_BYTES_MAX = 64 * 1024 * 1024

Address = tuple[str, int]


class Unanswered(OSError):
    """A request got no answer; the message says where and why."""


def security_of(properties: Iterable[str] | None) -> Security | None:
    """How to come in, as the properties of ``-X`` ask for it; None: by a plain connection."""
    given = client_properties(properties)
    if given.get("security.protocol", "PLAINTEXT").upper() == "PLAINTEXT":
        return None
    # It is not loaded for whoever needs none of it.
    from ottla.cli.secured import Security

    return Security(given)


class DirectConnection:
    """A connection to one broker."""

    def __init__(
        self, address: Address, timeout_s: float = REQUEST_TIMEOUT_S, security: Security | None = None
    ) -> None:
        """``security``: how to come in; None: by a plain connection."""
        self.where = f"{address[0]}:{address[1]}"
        self._ids = itertools.count(1)
        self._versions: dict[int, tuple[int, int]] | None = None
        try:
            self._socket = socket.create_connection(address, CONNECT_TIMEOUT_S)
            if security is not None:
                self._socket = security.wrap(self._socket, address[0])
        except OSError as error:
            raise self._unanswered(error) from None
        self._timeout_s = timeout_s
        self._stream = self._socket.makefile("rb")
        if security is not None and security.logs_in:
            security.log_in(lambda name, version, fields: self.ask(name, fields, version))

    def _unanswered(self, error: OSError) -> Unanswered:
        # What the check of a certificate found, without OpenSSL's names for it.
        found = getattr(error, "verify_message", None)
        reason = f"its certificate is not to be trusted: {found}" if found else error.strerror or str(error)
        return Unanswered(f"{self.where}: {reason.lower()}")

    def close(self) -> None:
        self._stream.close()
        self._socket.close()

    def ask(
        self, name: str, fields: Mapping[str, Any], version: int | None = None, *, version_min: int = 0
    ) -> Any:
        """The response to a request, of the newest version that both sides know unless one is given.

        ``version_min`` is the first that has all of ``fields`` that matter. Unanswered where the connection
        fails; CliError where the broker does not know the request, or not in such a version.
        """
        api = BY_NAME[name]
        if version is None:
            version = self._version(api, version_min)
        correlation_id = next(self._ids)
        request = frame_request(api.key, version, correlation_id, CLIENT_ID, dict(fields))
        self._socket.settimeout(min(self._timeout_s, READ_TIMEOUT_S) if name in READS else self._timeout_s)
        try:
            self._socket.sendall(request)
            size = int.from_bytes(self._stream.read(4), "big")
            response = self._stream.read(size) if 4 <= size <= RESPONSE_BYTES_MAX else b""
        except OSError as error:
            raise self._unanswered(error) from None
        if response[:4] != correlation_id.to_bytes(4, "big"):
            raise Unanswered(f"{self.where} does not answer: does it ask for TLS, or a login (-X)?")
        try:
            # Behind the correlation id a flexible header has its section of tagged fields, which is empty.
            flexible = response_header_flexible(api.key, version)
            return decode_response(api.key, version, response, 5 if flexible else 4)
        except MalformedMessage as error:
            raise CliError(f"{self.where}: {error}") from error

    def _version(self, api: Api, version_min: int) -> int:
        if self._versions is None:
            answer = self.ask("ApiVersions", {}, version=0)
            self._versions = {one.api_key: (one.min_version, one.max_version) for one in answer.api_keys}
        low, high = self._versions.get(api.key, (0, -1))
        version = min(high, api.version_max)
        if version < max(low, api.version_min):
            raise CliError(f"the broker at {self.where} does not know {api.name} requests")
        if version < version_min:
            text = f"the broker at {self.where} knows {api.name} requests to version {version} only"
            raise CliError(f"{text}; this needs {version_min}")
        return version


class DirectCluster:
    """The brokers of a cluster, each connected to when it is asked first."""

    def __init__(self, bootstrap: str, properties: Iterable[str] | None = None) -> None:
        self._security = security_of(properties)
        self._bootstrap = parse_bootstrap(bootstrap)
        self._brokers: dict[int, Address] = {}
        self._controller = -1
        self._connections: dict[Address, DirectConnection] = {}
        # Those that did not answer last time they were asked: they are asked last.
        self._silent: dict[Address, None] = {}

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()

    def learn(self, metadata: Any) -> None:
        """Take over from a Metadata response where the brokers are."""
        self._brokers = {broker.node_id: (broker.host, broker.port) for broker in metadata.brokers}
        self._controller = metadata.controller_id

    def learn_broker(self, node: int, address: Address) -> None:
        """Take over from an answer where one broker is."""
        self._brokers[node] = address

    def ask(
        self, name: str, fields: Mapping[str, Any], *, version_min: int = 0, retry_s: float = RETRY_S
    ) -> Any:
        """The response of the controller, or of any broker where that does not answer.

        ``version_min`` as of ``DirectConnection.ask``; ``retry_s`` is how long it is tried again at all of
        them. CliError (unreachable) where nobody answers.
        """
        deadline_s = time.monotonic() + retry_s
        while True:
            why = "no broker is known"
            for address in self._order():
                try:
                    response = self._connection(address).ask(name, fields, version_min=version_min)
                    self._silent.pop(address, None)
                    return response
                except Unanswered as error:
                    why = str(error)
                    self._forget(address)
            if not self._brokers or time.monotonic() >= deadline_s:
                raise CliError(f"cannot reach a broker: {why}", ExitCode.UNREACHABLE)
            time.sleep(RETRY_STEP_S)

    def ask_node(self, node: int, name: str, fields: Mapping[str, Any], *, version_min: int = 0) -> Any:
        """The response of one broker. Unanswered where it gives none."""
        address = self._brokers.get(node)
        if address is None:
            raise Unanswered(f"node {node} is not there")
        try:
            return self._connection(address).ask(name, fields, version_min=version_min)
        except Unanswered:
            self._forget(address)
            raise

    def _order(self) -> Sequence[Address]:
        controller = self._brokers.get(self._controller)
        first = [controller] if controller is not None else []
        everyone = dict.fromkeys((*first, *self._brokers.values(), *self._bootstrap))
        return sorted(everyone, key=lambda address: address in self._silent)

    def _connection(self, address: Address) -> DirectConnection:
        if address not in self._connections:
            self._connections[address] = DirectConnection(address, security=self._security)
        return self._connections[address]

    def _forget(self, address: Address) -> None:
        self._silent[address] = None
        if (connection := self._connections.pop(address, None)) is not None:
            connection.close()


_NOT_FOUND = (
    ErrorCode.unknown_topic_or_partition,
    ErrorCode.broker_id_not_registered,
    ErrorCode.transactional_id_not_found,
    ErrorCode.group_id_not_found,
)


def check(error_code: int, message: str | None, what: str, *rights: Right) -> None:
    """CliError where a response has an error. ``rights``: those that the request needs, of which the user
    lacks the one that the error is about."""
    if error_code:
        code = ExitCode.NOT_FOUND if error_code in _NOT_FOUND else ExitCode.FAILED
        text = f"{what}: {message or error_name(error_code)}"
        if (kind := KINDS.get(error_code)) is not None:
            lacking = next((str(right) for right in rights if right.kind == kind), NO_RIGHT)
            raise DeniedError(f"{text.rstrip('.')} ({lacking})", code)
        raise CliError(text, code)


def error_name(error_code: int) -> str:
    """An error code in words."""
    try:
        return ErrorCode(error_code).name.replace("_", " ")
    except ValueError:
        return f"error {error_code}"
