"""The metadata store over a Unix socket: its frames, its limits, who may come, and contact that is lost.

That it does what a store does is in `test_metadata_store_contract.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import stat
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from measuring import HANG_S
from ottla.env import unix
from ottla.env.clock import SystemClock
from ottla.metadata import socket_server, socket_store
from ottla.metadata import socket_wire as wire
from ottla.metadata.socket_server import StoreServer
from ottla.metadata.socket_store import SocketStore
from ottla.metadata.socket_wire import Op, Status, WireError
from ottla.metadata.sqlite import SqliteStore
from ottla.metadata.store import (
    TXN_OPERATIONS_MAX,
    CompactedError,
    Compare,
    Delete,
    Event,
    KeyValue,
    LeaseError,
    OutcomeUnknownError,
    Put,
    StoreError,
)

# ------------------------------------------------------------ frames

KEYS = st.text(st.characters(), max_size=20)
NUMBERS = st.integers(0, wire.INTEGER_MAX)
COMPARES = st.builds(Compare, KEYS, st.none() | NUMBERS, st.none() | st.binary(max_size=20))
OPERATIONS = st.builds(Put, KEYS, st.binary(max_size=20), NUMBERS) | st.builds(Delete, KEYS, st.booleans())


def body(frame: bytes) -> bytes:
    """What follows a frame's header, which tells how much that is."""
    header, rest = frame[: wire.LENGTH_BYTES], frame[wire.LENGTH_BYTES :]
    assert wire.body_bytes(header) == len(rest)
    return rest


@given(NUMBERS, st.lists(COMPARES, max_size=5), st.lists(OPERATIONS, max_size=5))
def test_a_transaction_arrives_as_it_was(call_id: int, compares: list[Any], operations: list[Any]) -> None:
    frame = wire.request(call_id, Op.TXN, *wire.txn_arguments(compares, operations))
    assert wire.parse_request(body(frame)) == (call_id, Op.TXN, (compares, operations))


@given(st.builds(KeyValue, KEYS, st.binary(), NUMBERS, NUMBERS, NUMBERS, NUMBERS))
def test_a_key_arrives_as_it_was(item: KeyValue) -> None:
    answer = wire.parse_answer(body(wire.answer(7, wire.item_of(item))))
    assert answer[:2] == (7, Status.OK)
    assert wire.parse_item(answer.content[0]) == item


@given(st.builds(Event, KEYS, st.none() | st.binary(), NUMBERS))
def test_an_event_arrives_as_it_was(event: Event) -> None:
    answer = wire.parse_answer(body(wire.answer(7, wire.event_of(event), more=True)))
    assert answer[:2] == (7, Status.MORE)
    assert wire.parse_event(answer.content[0]) == event


@pytest.mark.parametrize(
    "error",
    [
        StoreError("s"),
        LeaseError("l"),
        OutcomeUnknownError("u"),
        ValueError("v"),
        CompactedError(7),
    ],
)
def test_an_error_arrives_as_what_it_was(error: Exception) -> None:
    answer = wire.parse_answer(body(wire.failure(7, error)))
    made = wire.error_of(answer.content)
    assert answer[:2] == (7, Status.FAILED)
    assert (type(made), str(made)) == (type(error), str(error))
    assert getattr(made, "compact_revision", None) == getattr(error, "compact_revision", None)


@pytest.mark.parametrize("size", [0, wire.REQUEST_BYTES_MAX + 1, 2**32 - 1])
def test_a_length_that_is_none_is_refused_before_anything_is_received(size: int) -> None:
    with pytest.raises(WireError):
        wire.body_bytes(size.to_bytes(wire.LENGTH_BYTES), wire.REQUEST_BYTES_MAX)
    assert wire.body_bytes(wire.REQUEST_BYTES_MAX.to_bytes(wire.LENGTH_BYTES), wire.REQUEST_BYTES_MAX)


BAD: list[Any] = [
    {},
    [],
    [1],
    [1, "nothing"],
    [1, ["get"]],
    [1, "get"],
    [1, "get", "a", "b"],
    ["1", "get", "a"],
    [-1, "get", "a"],
    [True, "get", "a"],
    [1.5, "get", "a"],
    [1 << 63, "get", "a"],
    [1, "get", None],
    [1, "get", "a" * (wire.KEY_CHARACTERS_MAX + 1)],
    [1, "watch", "", -1],
    [1, "grant", "1"],
    [1, "txn", [], {}],
    [1, "txn", [["a", 0]], []],
    [1, "txn", [["a", 0, "not base64"]], []],
    [1, "txn", [["a", 0, "ü"]], []],
    [1, "txn", [["a", 0, "AA"]], []],
    [1, "txn", [], [["put", "a", "", -1]]],
    [1, "txn", [], [["put", "a", None, 0]]],
    [1, "txn", [], [["delete", "a", 1]]],
    [1, "txn", [], [["swap", "a", "b"]]],
    [1, "txn", [], [[]]],
    [1, "txn", [], [["delete", "a", False]] * (TXN_OPERATIONS_MAX + 1)],
    [1, "txn", [["a", 0, None]] * (TXN_OPERATIONS_MAX + 1), []],
]


@pytest.mark.parametrize("document", BAD, ids=range(len(BAD)))
def test_what_is_no_request_is_refused(document: Any) -> None:
    with pytest.raises(WireError):
        wire.parse_request(json.dumps(document).encode())


@pytest.mark.parametrize(
    "hostile", [b"[" * 100_000, b"\xff\xfe", b"[1" + b"0" * 5_000 + b', "get", "a"]', b"["]
)
def test_bytes_that_are_no_json_are_refused(hostile: bytes) -> None:
    with pytest.raises(WireError):
        wire.parse_request(hostile)


@given(
    st.binary(max_size=200) | st.from_regex(rb"\[[0-9]{1,3},\"(txn|get|watch)\",.{0,60}\]", fullmatch=True)
)
def test_any_bytes_are_a_request_or_refused(data: bytes) -> None:
    with contextlib.suppress(WireError):
        wire.parse_request(data)
    with contextlib.suppress(WireError):
        wire.parse_answer(data)


@given(st.lists(st.tuples(KEYS, st.integers(0, 400_000)), max_size=8))
def test_an_answer_with_much_is_cut_into_what_fits(sizes: list[tuple[str, int]]) -> None:
    elements = [[key, "A" * size, 1] for key, size in sizes]
    pieces = list(wire.parts(elements))
    assert [element for piece in pieces for element in piece] == elements
    assert pieces
    for piece in pieces:
        assert len(piece) == 1 or sum(len(element[1]) for element in piece) <= wire.PART_BYTES


# ------------------------------------------------------------ a server and those who come


@asynccontextmanager
async def serving(path: Path, **options: Any) -> AsyncIterator[tuple[SqliteStore, StoreServer, str]]:
    store = await SqliteStore.open(str(path / "metadata.db"), SystemClock())
    server = StoreServer(store, str(path / "store"), **options)
    await server.open()
    try:
        yield store, server, str(path / "store")
    finally:
        await server.close()
        await store.close()


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(work(), HANG_S))


async def ended(reader: asyncio.StreamReader) -> bool:
    """Whether the other side has closed, having said nothing."""
    try:
        return await asyncio.wait_for(reader.read(1), HANG_S) == b""
    except ConnectionError:
        return True


def test_only_the_same_user_gets_to_the_socket(tmp_path: Path) -> None:
    async def work() -> None:
        (tmp_path / "store").mkdir(mode=0o755)
        async with serving(tmp_path) as (_, _, folder):
            assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
            assert stat.S_IMODE(os.stat(f"{folder}/socket").st_mode) == 0o600

    run(work)


def test_another_user_is_refused_by_what_the_kernel_says(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(tmp_path, user=lambda: os.geteuid() + 1) as (_, _, folder):
            reader, writer = await unix.connect(folder, limit=1024)
            assert await ended(reader)
            writer.close()

    run(work)


def test_a_socket_that_another_user_listens_at_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with serving(tmp_path) as (_, _, folder):
            monkeypatch.setattr(unix, "peer_of", lambda connected: (1, os.geteuid() + 1))
            with pytest.raises(PermissionError):
                await unix.connect(folder, limit=1024)

    run(work)


def test_a_folder_may_have_a_path_of_any_length(tmp_path: Path) -> None:
    async def work() -> None:
        deep = tmp_path / ("a" * 200)
        deep.mkdir()
        async with serving(deep) as (_, _, folder):
            store = SocketStore(folder, SystemClock())
            assert await store.get("a") is None
            await store.close()

    run(work)


@pytest.mark.parametrize(
    "hostile",
    [
        b"\xff\xff\xff\xff",
        b"GET / HTTP/1.1\r\n\r\n",
        (4).to_bytes(4) + b"null",
        wire.frame([1, "nothing"]),
        wire.frame([1, "watch", "", 10**6]) * (socket_server.WATCHES_MAX + 1),
        wire.frame([1, "watch", "", 10**6]) * 2,
    ],
    ids=["length", "http", "json", "operation", "watches", "same id"],
)
def test_who_says_what_nobody_understands_is_let_go_and_others_go_on(tmp_path: Path, hostile: bytes) -> None:
    async def work() -> None:
        async with serving(tmp_path) as (_, _, folder):
            store = SocketStore(folder, SystemClock())
            await store.txn([], [Put("a", b"1")])
            reader, writer = await unix.connect(folder, limit=1024)
            writer.write(hostile)
            assert await ended(reader)
            writer.close()
            assert (await store.get("a"))[1] == b"1"  # type: ignore[index]
            await store.close()

    run(work)


def test_a_client_that_goes_in_the_middle_of_a_frame_leaves_nothing(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(tmp_path) as (_, server, folder):
            for cut in (1, 4, 20):
                _, writer = await unix.connect(folder, limit=1024)
                writer.write(wire.request(1, Op.WATCH, "", 10**6))
                writer.write(wire.request(2, Op.GET, "some key that is long enough")[:cut])
                await writer.drain()
                writer.close()
            while server._connections:
                await asyncio.sleep(0.005)

    run(work)


def test_more_connections_than_there_may_be_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket_server, "CONNECTIONS_MAX", 2)

    async def work() -> None:
        async with serving(tmp_path) as (_, server, folder):
            writers = []
            for _ in range(2):
                _, writer = await unix.connect(folder, limit=1024)
                writers.append(writer)
            while len(server._connections) < 2:
                await asyncio.sleep(0.005)
            reader, writer = await unix.connect(folder, limit=1024)
            assert await ended(reader)
            for one in (*writers, writer):
                one.close()

    run(work)


def test_a_client_that_does_not_read_makes_the_server_wait_and_not_grow(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(tmp_path) as (store, server, folder):
            for number in range(8):
                await store.txn([], [Put(f"k{number}", bytes(1_000_000))])
            _, writer = await unix.connect(folder, limit=1024)
            for number in range(100):
                writer.write(wire.request(number, Op.RANGE, ""))
            await asyncio.sleep(0.5)
            (connection,) = server._connections
            assert connection._writer.transport.get_write_buffer_size() < 2 * wire.FRAME_BYTES_MAX
            # Others are served meanwhile.
            other = SocketStore(folder, SystemClock())
            assert len((await other.range("")).items) == 8
            await other.close()
            writer.close()

    run(work)


def test_a_request_that_is_too_large_is_refused_and_no_more(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(tmp_path) as (_, _, folder):
            store = SocketStore(folder, SystemClock())
            with pytest.raises(StoreError, match="refused the request"):
                await store.txn([], [Put("a", bytes(wire.REQUEST_BYTES_MAX))])
            assert await store.get("a") is None
            await store.close()

    run(work)


def test_one_revision_may_have_more_events_than_fit_into_a_frame(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(tmp_path) as (_, _, folder):
            store = SocketStore(folder, SystemClock())
            count = 20 * TXN_OPERATIONS_MAX
            names = [f"{number:05}" + "x" * 1_000 for number in range(count)]
            for at in range(0, count, TXN_OPERATIONS_MAX):
                start = (
                    await store.txn([], [Put(n, b"") for n in names[at : at + TXN_OPERATIONS_MAX]])
                ).revision
            done = await store.txn([], [Delete("", prefix=True)])
            assert count * 1_000 > wire.FRAME_BYTES_MAX / 2
            async for batch in store.watch("", start + 1):
                assert batch.revision == done.revision
                assert [event.key for event in batch.events] == names
                break
            await store.close()

    run(work)


# ------------------------------------------------------------ contact that is lost


def test_what_was_asked_for_is_asked_for_again_and_watches_go_on(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(tmp_path) as (sqlite, server, folder):
            store = SocketStore(folder, SystemClock())
            start = (await store.txn([], [Put("a", b"0")])).revision
            seen: list[bytes | None] = []

            async def follow() -> None:
                async for batch in store.watch("a", start):
                    seen.extend(event.value for event in batch.events)

            task = asyncio.create_task(follow())
            for number in range(1, 6):
                for connection in list(server._connections):
                    connection._writer.transport.abort()
                await sqlite.txn([], [Put("a", b"%d" % number)])
                assert (await store.get("a"))[1] == b"%d" % number  # type: ignore[index]
            while len(seen) < 6:
                await asyncio.sleep(0.005)
            assert seen == [b"%d" % number for number in range(6)]
            task.cancel()
            await asyncio.wait([task])
            await store.close()

    run(work)


def test_a_transaction_whose_answer_is_lost_is_not_repeated(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(tmp_path) as (sqlite, server, folder):
            store = SocketStore(folder, SystemClock())
            await store.get("a")
            (connection,) = server._connections

            async def lose(data: bytes) -> None:
                connection._writer.transport.abort()
                raise ConnectionError

            connection._send = lose  # type: ignore[method-assign]
            with pytest.raises(OutcomeUnknownError):
                await store.txn([], [Put("a", b"1")])
            item = await sqlite.get("a")
            assert item is not None
            assert item.version == 1
            assert (await store.txn([], [Put("a", b"2")])).succeeded
            await store.close()

    run(work)


def test_nobody_waits_for_ever_for_a_store_that_is_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket_store, "TIMEOUT_MS", 200)

    async def work() -> None:
        async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        folder = str(tmp_path / "store")
        server = await unix.listen(folder, never, limit=1024)
        store = SocketStore(folder, SystemClock())
        with pytest.raises(StoreError, match="does not answer") as caught:
            await store.get("a")
        assert not isinstance(caught.value, OutcomeUnknownError)
        with pytest.raises(OutcomeUnknownError, match="does not answer"):
            await store.txn([], [Put("a", b"")])
        await store.close()
        server.close()

    run(work)


def test_nobody_there_is_a_store_out_of_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket_store, "TIMEOUT_MS", 200)

    async def work() -> None:
        store = SocketStore(str(tmp_path / "store"), SystemClock())
        with pytest.raises(StoreError, match="cannot be reached") as caught:
            await store.txn([], [Put("a", b"")])
        # Nothing was sent: it certainly had no effect.
        assert not isinstance(caught.value, OutcomeUnknownError)
        assert store.silent_since_s is not None
        async with serving(tmp_path):
            assert (await store.txn([], [Put("a", b"")])).succeeded
        assert store.silent_since_s is None
        await store.close()

    run(work)


def test_a_lease_outlives_contact_that_is_lost(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(tmp_path) as (_, server, folder):
            store = SocketStore(folder, SystemClock())
            lost: list[int] = []
            lease = await store.lease_grant(600)
            await store.lease_hold(lease, lambda: lost.append(1))
            await store.txn([], [Put("a", b"", lease)])
            for _ in range(6):
                for connection in list(server._connections):
                    connection._writer.transport.abort()
                await asyncio.sleep(0.2)
                assert store.lease_lasts(lease)
            assert await store.get("a") is not None
            assert not lost
            await store.close()

    run(work)


def test_a_lease_that_is_not_renewed_does_not_count_as_lasting(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(tmp_path) as (_, server, folder):
            store = SocketStore(folder, SystemClock())
            lost: list[int] = []
            lease = await store.lease_grant(400)
            await store.lease_hold(lease, lambda: lost.append(1))
            assert store.lease_lasts(lease)
            await server.close()
            await asyncio.sleep(0.5)
            assert store.silent_since_s is not None
            # Nobody has said that it ended; whether it did is not known.
            assert not store.lease_lasts(lease)
            assert not lost
            await store.close()

    run(work)


def test_what_a_process_held_ends_with_it_and_not_with_its_connection(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(tmp_path) as (sqlite, server, folder):
            store = SocketStore(folder, SystemClock())
            lease = await store.lease_grant(60_000)
            await store.txn([], [Put("a", b"", lease), Put("b", b"")])
            own = await sqlite.lease_grant(60_000)
            await store.close()
            assert await sqlite.get("a") is not None
            await server.process_ended(os.getpid() + 1)
            assert await sqlite.get("a") is not None
            await server.process_ended(os.getpid())
            assert await sqlite.get("a") is None
            assert await sqlite.get("b") is not None
            await sqlite.lease_keep_alive(own)

    run(work)


def test_a_process_has_so_many_leases_and_those_that_ended_do_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket_server, "LEASES_MAX", 3)

    async def work() -> None:
        async with serving(tmp_path) as (sqlite, _, folder):
            store = SocketStore(folder, SystemClock())
            leases = [await store.lease_grant(60_000) for _ in range(3)]
            with pytest.raises(StoreError, match="no more than 3 leases"):
                await store.lease_grant(60_000)
            # One that ended by itself, and one that was given back.
            await sqlite.lease_revoke(leases[0])
            await store.lease_revoke(leases[1])
            for _ in range(2):
                await store.lease_grant(60_000)
            with pytest.raises(StoreError):
                await store.lease_grant(60_000)
            for ttl_ms in (0, socket_server.LEASE_MS_MAX + 1):
                with pytest.raises(ValueError):
                    await store.lease_grant(ttl_ms)
            await store.close()

    run(work)
