"""The login of a connection: until it has succeeded, no other request is handled.

Kafka's ``SaslServerAuthenticator``. ``security/sasl`` decides the order of requests and
the principal; here are frames, answers, and the time that a refused client waits
(``connection.failed.authentication.delay.ms``).
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable
from typing import Any, Final

from ottla.broker.error_responses import error_fields
from ottla.broker.pending import Pending, Pieces
from ottla.broker.pipeline import Handle
from ottla.broker.request import Client, CloseConnection
from ottla.broker.server import Counts
from ottla.env.clock import Clock, Timer
from ottla.errors import ErrorCode, KafkaError
from ottla.security.principals import KafkaPrincipal
from ottla.security.sasl.machine import (
    Authenticated,
    Events,
    Failed,
    Moment,
    RawReply,
    Reply,
    SaslMachine,
    Settings,
)
from ottla.types import Buffer
from ottla.wire.apis import API_VERSIONS, APIS, SASL_AUTHENTICATE, SASL_HANDSHAKE
from ottla.wire.messages import RequestHeader, decode_request, frame_response, read_header

log = logging.getLogger(__name__)

_KEY = struct.Struct(">h")
_SIZE = struct.Struct(">i")
# A request that is refused before the login is read for the sake of its answer, if it is no larger: whoever
# comes may have that done. Kafka reads any.
REFUSED_BYTES_MAX: Final = 4 * 1024
# Where the error code of a framed ApiVersions response stands: behind the size and the correlation id.
_ERROR_AT = 8


class Authentication:
    """Called with each frame of one listener's clients; ``handle`` gets those of who is logged in."""

    def __init__(
        self,
        handle: Handle,
        settings: Callable[[], Settings],
        clock: Clock,
        *,
        delay_ms: Callable[[], int],
        welcome: Callable[[Client, KafkaPrincipal], None],
        counts: Counts | None = None,
    ) -> None:
        """``settings``: the listener's, asked for each connection. ``welcome`` is told who a client is."""
        self._counts = Counts() if counts is None else counts
        self._handle = handle
        self._settings = settings
        self._clock = clock
        self._delay_ms = delay_ms
        self._welcome = welcome

    def __call__(self, client: Client, frame: Buffer) -> Pieces | Pending | None:
        """As ``Gate``: the response, a promise of it, or None. CloseConnection, MalformedMessage."""
        machine = client.login
        if machine is None:
            machine = client.login = SaslMachine(self._settings())
        if machine.takes_raw_tokens:
            return self._carry_out(client, None, frame, machine.raw_token(bytes(frame), self._moment()))
        api_key = _KEY.unpack_from(frame)[0] if len(frame) >= _KEY.size else -1
        refused = machine.admit(api_key, self._clock.monotonic_ms())
        if refused is not None:
            return self._refuse(client, self._header(refused, frame), frame, refused)
        if api_key in (SASL_HANDSHAKE, SASL_AUTHENTICATE):
            return self._log_in(client, machine, frame)
        answer = self._handle(client, frame)
        if api_key == API_VERSIONS and not machine.is_complete and _succeeded(answer):
            machine.versions_told()
        return answer

    def _log_in(self, client: Client, machine: SaslMachine, frame: Buffer) -> Pieces | Pending | None:
        header = read_header(frame)
        if header.codec is None:
            raise CloseConnection(f"{APIS[header.api_key].name} version {header.api_version} is not served")
        request = decode_request(header.api_key, header.api_version, frame, header.body_offset)
        if header.api_key == SASL_HANDSHAKE:
            events = machine.handshake(header.api_version, request.mechanism, self._moment())
        else:
            events = machine.authenticate(header.api_version, bytes(request.auth_bytes), self._moment())
        return self._carry_out(client, header, frame, events)

    def _carry_out(
        self, client: Client, header: RequestHeader | None, frame: Buffer, events: Events
    ) -> Pieces | Pending | None:
        answer: Pieces | Pending | None = None
        for event in events:
            if isinstance(event, Reply):
                assert header is not None
                answer = frame_response(header, event.fields)
            elif isinstance(event, RawReply):
                answer = [_SIZE.pack(len(event.token)) + event.token]
            elif isinstance(event, Failed):
                answer = self._refuse(client, header, frame, event)
            else:
                self._accept(client, event)
        return answer

    def _accept(self, client: Client, event: Authenticated) -> None:
        self._counts.logins += 1
        if event.again:
            # The same one, who may have come by a token this time.
            client.principal = event.principal
            return
        self._welcome(client, event.principal)
        if client.line is not None:
            client.line.trust()
        log.debug("%s: logged in", client)

    @staticmethod
    def _header(refused: Failed, frame: Buffer) -> RequestHeader | None:
        """The header of a request that is refused, where that is answered."""
        return None if refused.error is None else read_header(frame)

    def _refuse(self, client: Client, header: RequestHeader | None, frame: Buffer, failed: Failed) -> Pending:
        """Close the connection: where it is so decided, only after a while, and with an answer."""
        self._counts.login_failures += 1
        log.warning("%s: the login failed: %s", client, failed.reason)
        line = client.line
        pieces = self._last_words(header, frame, failed)
        timer: Timer

        def forget() -> None:
            timer.cancel()

        def end() -> None:
            if line is not None:
                line.end()
            pending.resolve(pieces)

        pending = Pending(True, forget)
        timer = self._clock.call_later(self._delay_ms() if failed.delayed else 0, end)
        return pending

    @staticmethod
    def _last_words(header: RequestHeader | None, frame: Buffer, failed: Failed) -> Pieces | None:
        if header is None:
            return None
        if failed.answer is not None:
            return frame_response(header, failed.answer)
        if failed.error is None or header.codec is None or len(frame) > REFUSED_BYTES_MAX:
            return None
        request = decode_request(header.api_key, header.api_version, frame, header.body_offset)
        return frame_response(header, error_fields(header.api_key, request, KafkaError(failed.error)))

    def _moment(self) -> Moment:
        return Moment(self._clock.now_ms(), self._clock.monotonic_ms())


def _succeeded(answer: Any) -> bool:
    """Whether an ApiVersions was answered without an error."""
    if not isinstance(answer, list):
        return False
    (code,) = _KEY.unpack_from(b"".join(answer), _ERROR_AT)
    return bool(code == ErrorCode.none)
