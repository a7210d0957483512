"""A Produce by the quick way and by the general one: whatever is sent, they answer and append the same.

The gate takes the quick way with bytes, and the general one with a view of them, as of large requests.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from admin_support import new_topic
from client_support import let_in
from crc32c import crc32c
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from measuring import HANG_S
from ottla.broker.gate import Gate, load_handlers
from ottla.broker.pending import Pending
from ottla.broker.request import CloseConnection
from ottla.env.clock import SystemClock
from ottla.node import Node, NodeSettings
from ottla.types import Record
from ottla.wire.apis import BY_NAME, PRODUCE, SERVED
from ottla.wire.messages import MalformedMessage, frame_request
from ottla.wire.records import CRC_POSITION, build_batch

VERSIONS: Final = sorted(version for key, version in SERVED if key == PRODUCE)
TOPIC_ID_SINCE: Final = 13
CRC_START: Final = CRC_POSITION + 4
# Stands for the topic's id, which is another one on each node.
ID: Final = UUID(int=0x5A5B5C5D5E5F50515253545556575859)
TOPICS: Final = ("t", "keys", "absent", "", "__consumer_offsets", "n" * 126, "n" * 127, "n" * 300)


def record(key: bytes | None, value: bytes | None, *headers: tuple[str, bytes | None]) -> Record:
    return Record(0, 1_000, key, value, headers)


PLAIN: Final = [record(None, b"v"), record(b"k", b"w" * 100), record(b"k", None)]
BATCHES: Final = (
    build_batch(PLAIN),
    build_batch(PLAIN[:1]),
    build_batch([record(b"k", b"v", ("h", b"1"), ("i", None))]),
    build_batch(PLAIN, compression=1),
    build_batch(PLAIN, compression=4),
    build_batch(PLAIN, producer_id=7, producer_epoch=0, base_sequence=0),
    build_batch(PLAIN, producer_id=7, producer_epoch=0, base_sequence=3),
    build_batch(PLAIN, producer_id=8, producer_epoch=1, base_sequence=2**31 - 2),
    build_batch(PLAIN, transactional=True, producer_id=9, producer_epoch=0, base_sequence=0),
    build_batch(PLAIN[:1], control=True),
    build_batch([record(b"k", b"x" * 5_000)]),
    build_batch(PLAIN) * 2,
    build_batch(PLAIN)[:-1],
    build_batch(PLAIN)[:30],
    b"",
)


@st.composite
def batches(draw: st.DrawFn) -> bytes:
    """One of them, perhaps with bytes changed, and its checksum made for that."""
    batch = bytearray(draw(st.sampled_from(BATCHES)))
    if len(batch) > CRC_START and draw(st.booleans()):
        for _ in range(draw(st.integers(1, 3))):
            batch[draw(st.integers(0, len(batch) - 1))] = draw(st.integers(0, 255))
        if draw(st.booleans()):
            batch[8:12] = (len(batch) - 12).to_bytes(4)
            batch[16] = 2
        batch[CRC_POSITION:CRC_START] = crc32c(bytes(batch[CRC_START:])).to_bytes(4)
    return bytes(batch)


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """A request, perhaps cut off, or with bytes changed, or too many or too few of them."""
    version = draw(st.sampled_from(VERSIONS))
    topic = (
        draw(st.sampled_from(TOPICS)) if draw(st.integers(0, 7)) == 7 else draw(st.sampled_from(TOPICS[:2]))
    )
    records = draw(batches())
    data = {"index": draw(st.sampled_from((0, 0, 0, 0, 0, 1, -1))), "records": records}
    key = {"topic_id": ID} if version >= TOPIC_ID_SINCE else {"name": topic}
    fields = {
        "transactional_id": draw(st.sampled_from((None, None, None, "", "x"))),
        "acks": draw(st.sampled_from((0, -1, 0, 1, 0, 2))),
        "timeout_ms": draw(st.sampled_from((0, 1_000, -1))),
        "topic_data": [key | {"partition_data": [data]}],
    }
    frame = bytearray(frame_request(PRODUCE, version, 5, "client", fields)[4:])
    head_end = len(frame) - len(records)
    for _ in range(draw(st.sampled_from((0, 0, 0, 0, 1, 1, 2)))):
        # Not the id that the request is answered by, nor its API and version.
        at = min(draw(st.integers(8, head_end if draw(st.booleans()) else len(frame))), len(frame) - 1)
        kind = draw(st.sampled_from(("set", "set", "insert", "delete", "cut")))
        if kind == "set":
            frame[at] = draw(st.sampled_from((0, 1, 2, 3, 0x7F, 0x80, 0xFF)) | st.integers(0, 255))
        elif kind == "insert":
            frame[at:at] = draw(st.binary(min_size=1, max_size=5))
        elif kind == "delete":
            del frame[at : at + draw(st.integers(1, 5))]
        else:
            del frame[at:]
    return bytes(frame)


class StoppedClock(SystemClock):
    """At the same time for both: answers name the time that a batch's is held against."""

    def now_ms(self) -> int:
        return 1_700_000_000_000


class Side:
    """A node that is asked by one way: with frames of one kind."""

    def __init__(self, path: Path, kind: type[bytes] | type[memoryview]) -> None:
        self.path = path
        self._kind = kind
        self._node = Node(NodeSettings(data=str(path), port=0), clock=StoppedClock())
        self._id = b""
        self._gate: Gate

    async def start(self) -> None:
        await self._node.start()
        self._gate = Gate(self._node.services, load_handlers())
        compact = {"configs": [{"name": "cleanup.policy", "value": "compact"}]}
        fields = {
            "topics": [new_topic("t"), new_topic("keys") | compact],
            "timeout_ms": 5_000,
            "validate_only": False,
        }
        assert await self.answer(frame_request(BY_NAME["CreateTopics"].key, 7, 1, "client", fields)[4:])
        self._id = self._node.services.metadata.image.topics["t"].topic_id.bytes

    async def stop(self) -> None:
        await self._node.stop()

    async def answer(self, frame: bytes) -> Any:
        """The answer's bytes, None for none, or what ends the connection."""
        asked = self._kind(frame.replace(ID.bytes, self._id))
        try:
            reply = self._gate(let_in(), asked)
            if isinstance(reply, Pending):
                done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
                reply.listen(done.set_result)
                await asyncio.wait_for(done, HANG_S)
                reply = reply.result()
        except MalformedMessage:
            return MalformedMessage
        except CloseConnection as error:
            return str(error)
        return None if reply is None else b"".join(reply).replace(self._id or ID.bytes, ID.bytes)

    def logs(self) -> dict[str, bytes]:
        return {
            str(log.relative_to(self.path)): log.read_bytes() for log in sorted(self.path.glob("*-0/*.log"))
        }

    def ends(self) -> list[int]:
        replicas = self._node.services.replicas
        return [replicas.get(topic, 0).log.log_end_offset for topic in ("t", "keys")]


def test_they_answer_and_append_the_same(tmp_path: Path) -> None:
    sides = Side(tmp_path / "quick", bytes), Side(tmp_path / "general", memoryview)
    seen: Counter[str] = Counter()
    with asyncio.Runner() as runner:
        for side in sides:
            runner.run(side.start())

        @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
        @given(frames())
        def compare(frame: bytes) -> None:
            quick, general = [runner.run(side.answer(frame)) for side in sides]
            assert quick == general
            assert sides[0].ends() == sides[1].ends()
            seen[type(quick).__name__] += 1

        compare()
        for side in sides:
            runner.run(side.stop())
    # Answers, the end of the connection, and what is no request.
    assert {"bytes", "str", "type"} <= set(seen)
    quick_logs, general_logs = sides[0].logs(), sides[1].logs()
    assert quick_logs == general_logs and len(quick_logs) >= 2
    assert any(quick_logs.values())
