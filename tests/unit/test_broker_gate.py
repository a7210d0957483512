"""Whatever a handler does, the connection gets an answer or its end, and never nothing."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from client_support import let_in

from measuring import HANG_S
from ottla.broker.gate import Gate
from ottla.broker.pending import Pending, Unbegun
from ottla.broker.request import Client, CloseConnection, Framed, RequestContext
from ottla.env.deferred import Deferred
from ottla.errors import ErrorCode, KafkaError
from ottla.security.acl_bindings import Operation, ResourceType
from ottla.wire.apis import APIS, BY_NAME
from ottla.wire.messages import MalformedMessage, decode_response, encode_request, read_header

GOOD = {"error_code": 0, "throttle_time_ms": 0}
INCOMPLETE: dict[str, Any] = {"throttle_time_ms": 0}


def frame(name: str, version: int, fields: dict[str, Any]) -> bytes:
    api = BY_NAME[name]
    return struct.pack(">hhih", api.key, version, 77, -1) + encode_request(api.key, version, fields)


HEARTBEAT = frame("Heartbeat", 1, {"group_id": "g", "generation_id": 1, "member_id": "m"})


def produce(acks: int) -> bytes:
    partition = {"index": 0, "records": b""}
    topics = [{"name": "t", "partition_data": [partition]}]
    return frame(
        "Produce", 3, {"transactional_id": None, "acks": acks, "timeout_ms": 1, "topic_data": topics}
    )


def gate(handler: Callable[..., Any]) -> Gate:
    services: Any = SimpleNamespace(denials=0)
    return Gate(services, dict.fromkeys(APIS, handler))


def ask(handler: Callable[..., Any], request: bytes = HEARTBEAT) -> Any:
    return gate(handler)(let_in(), request)


def code(pieces: list[bytes]) -> str:
    data = b"".join(pieces)
    size, correlation_id = struct.unpack_from(">ii", data)
    assert (size, correlation_id) == (len(data) - 4, 77)
    response = decode_response(BY_NAME["Heartbeat"].key, 1, data, 8)
    return ErrorCode(response.error_code).name


def fails(error: BaseException) -> Callable[..., Any]:
    def handler(ctx: Any, request: Any) -> Any:
        raise error

    return handler


def later(outcome: Any) -> Callable[..., Any]:
    async def handler(ctx: Any, request: Any) -> Any:
        await asyncio.sleep(0)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    return handler


FENCED = KafkaError(ErrorCode.unknown_member_id)


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (GOOD, "none"),
        (FENCED, "unknown_member_id"),
        (ZeroDivisionError(), "unknown_server_error"),
        (INCOMPLETE, "unknown_server_error"),
        (GOOD | {"error_code": 1 << 20}, "unknown_server_error"),
    ],
)
def test_an_answer_comes_of_whatever_a_handler_does(outcome: Any, expected: str) -> None:
    async def main() -> None:
        now = fails(outcome) if isinstance(outcome, BaseException) else lambda ctx, request: outcome
        assert code(ask(now)) == expected
        pending = ask(later(outcome))
        assert isinstance(pending, Pending) and pending.blocks
        assert code(await asyncio.wait_for(pending, HANG_S) or []) == expected

    asyncio.run(main())


@pytest.mark.parametrize("outcome", [CloseConnection("asked to"), asyncio.CancelledError()])
def test_where_there_can_be_no_answer_the_connection_ends(outcome: BaseException) -> None:
    async def main() -> None:
        with pytest.raises(CloseConnection):
            await asyncio.wait_for(ask(later(outcome)), HANG_S)

    asyncio.run(main())


def test_where_not_even_the_error_can_be_written_the_connection_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ottla.broker.error_responses.error_fields", lambda *_: INCOMPLETE)
    with pytest.raises(CloseConnection):
        ask(fails(FENCED))

    async def main() -> None:
        with pytest.raises(CloseConnection):
            await asyncio.wait_for(ask(later(FENCED)), HANG_S)

    asyncio.run(main())


def test_a_client_that_waits_for_no_answer_gets_none() -> None:
    """One that it does not expect would be taken for the answer to its next request."""
    assert ask(lambda ctx, request: None, produce(0)) is None
    for error in (ZeroDivisionError(), FENCED):
        with pytest.raises(CloseConnection):
            ask(fails(error), produce(0))
        assert isinstance(ask(fails(error), produce(1)), list)


def test_the_answer_to_a_large_request_is_written_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ottla.broker.gate.AT_ONCE_MAX", -1)
    written = []

    async def in_pieces(ctx: Any, fields: Any) -> Any:
        written.append(fields)
        return Framed([b"piece"])

    monkeypatch.setattr("ottla.broker.gate.in_pieces", in_pieces)

    async def main() -> None:
        pending = ask(lambda ctx, request: GOOD)
        assert isinstance(pending, Pending) and pending.blocks
        assert await asyncio.wait_for(pending, HANG_S) == [b"piece"] and written == [GOOD]
        assert ask(lambda ctx, request: None, produce(0)) is None

    asyncio.run(main())


def test_only_a_produce_that_has_begun_lets_others_pass() -> None:
    async def main() -> None:
        waiting: Deferred[Any] = Deferred()
        assert not ask(lambda ctx, request: waiting, produce(-1)).blocks
        begun = asyncio.ensure_future(later({"responses": ()})(None, None))
        assert not ask(lambda ctx, request: begun, produce(-1)).blocks
        assert ask(later({"responses": ()}), produce(-1)).blocks
        assert ask(lambda ctx, request: Unbegun(), produce(-1)).blocks
        assert ask(later(GOOD)).blocks and ask(lambda ctx, request: Deferred()).blocks

    asyncio.run(main())


def test_a_client_that_goes_away_cancels_a_deferred_and_no_task() -> None:
    async def main() -> None:
        cancelled: list[int] = []
        waiting: Deferred[Any] = Deferred(lambda: cancelled.append(1))
        ask(lambda ctx, request: waiting).cancel()
        assert cancelled == [1] and waiting.done
        ended: list[int] = []

        async def change(ctx: Any, request: Any) -> Any:
            await asyncio.sleep(0)
            ended.append(1)
            return GOOD

        ask(change).cancel()
        await asyncio.sleep(0.01)
        assert ended == [1]

    asyncio.run(main())


@pytest.mark.parametrize("request_bytes", [b"", b"\0", b"\0\3\0", HEARTBEAT[:-1], HEARTBEAT[:9] + b"\x7f"])
def test_what_is_cut_off_is_malformed(request_bytes: bytes) -> None:
    with pytest.raises(MalformedMessage):
        ask(lambda ctx, request: GOOD, request_bytes)


@pytest.mark.parametrize(("key", "version"), [(999, 0), (-1, 0), (0, 2), (0, 14), (1, 3), (12, -1), (4, 0)])
def test_what_is_not_served_ends_the_connection(key: int, version: int) -> None:
    with pytest.raises(CloseConnection):
        ask(lambda ctx, request: GOOD, struct.pack(">hhih", key, version, 1, -1))


@pytest.mark.parametrize("version", [6, 99, 32767, -1])
def test_an_api_versions_request_of_the_future_is_told_which_version_works(version: int) -> None:
    data = b"".join(ask(lambda ctx, request: GOOD, struct.pack(">hhih", 18, version, 77, -1) + b"junk"))
    answer = decode_response(18, 0, data, 8)
    assert answer.error_code == ErrorCode.unsupported_version
    assert [tuple(key) for key in answer.api_keys] == [(18, 0, 5)]


def test_who_was_let_in_by_no_door_may_do_nothing() -> None:
    """Each door says what a client may do: one that forgets it lets nobody in."""
    asked: list[Any] = []

    def handler(ctx: Any, request: Any) -> dict[str, Any]:
        asked.append(request)
        return GOOD

    client = Client("h", "PLAINTEXT")
    assert code(gate(handler)(client, HEARTBEAT)) == "group_authorization_failed"
    assert not asked
    ctx = RequestContext(read_header(HEARTBEAT), client, gate(handler)._services)
    assert not ctx.may(Operation.READ, ResourceType.GROUP, "g")
    assert not ctx.may_any(Operation.READ, ResourceType.GROUP)
    assert ctx.operations(ResourceType.GROUP, "g") == 0
    assert client.permissions is not None
    assert str(client.permissions.decide(Operation.READ, ResourceType.GROUP, "g").rule) == "DefaultDeny"
    client.permissions = None
    assert code(gate(handler)(client, HEARTBEAT)) == "none"
    assert len(asked) == 1
