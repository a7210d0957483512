"""A whole broker and a raw client: requests written by our codec, responses read by kio's own reader."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import errno
import struct
import uuid
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pytest
from kio.serial import entity_reader

from measuring import HANG_S
from ottla.env.disk import RealDisk
from ottla.node import Node, NodeSettings
from ottla.wire.apis import BY_NAME
from ottla.wire.messages import encode_request, load, response_header_flexible

T = TypeVar("T")

HEADER = struct.Struct(">hhih")


def plain(value: Any) -> Any:
    """A message of kio's as dicts, lists and numbers."""
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    if isinstance(value, datetime.timedelta):
        return round(value.total_seconds() * 1000)
    return value


class Client:
    """One connection. ``node`` is the broker behind it, to look into."""

    def __init__(self, node: Node, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.node = node
        self._reader = reader
        self._writer = writer
        self._correlation_id = self._answered_id = 0

    def send(self, name: str, version: int, fields: Mapping[str, Any] | None = None) -> None:
        """A request alone."""
        api = BY_NAME[name]
        request = load(api.schema, version, "request")
        self._correlation_id += 1
        frame = HEADER.pack(api.key, version, self._correlation_id, 4) + b"test"
        if request.__flexible__:
            frame += b"\0"
        frame += encode_request(api.key, version, dict(fields or {}))
        self._writer.write(struct.pack(">i", len(frame)) + frame)

    async def ask(self, name: str, version: int, fields: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """A request and its response, as plain data."""
        self.send(name, version, fields)
        answer = await self.receive(name, version)
        assert self._answered_id == self._correlation_id
        return answer

    async def receive(self, name: str, version: int) -> dict[str, Any]:
        """The response to the oldest request that has none yet."""
        response = load(BY_NAME[name].schema, version, "response")
        size = struct.unpack(">i", await self._reader.readexactly(4))[0]
        data = await self._reader.readexactly(size)
        before, (self._answered_id,) = self._answered_id, struct.unpack_from(">i", data)
        assert before < self._answered_id <= self._correlation_id
        offset = 5 if response_header_flexible(BY_NAME[name].key, version) else 4
        message, read = entity_reader(response)(data, offset)
        assert offset + read == size
        made: dict[str, Any] = plain(message)
        return made

    def close(self) -> None:
        self._writer.close()


def versions(name: str) -> range:
    """Every version of an API that is served."""
    api = BY_NAME[name]
    return range(api.version_min, api.version_max + 1)


def each_version(*names: str) -> list[tuple[str, int]]:
    return [(name, version) for name in names for version in versions(name)]


def run(
    path: Path,
    body: Callable[[Client], Coroutine[Any, Any, T]],
    properties: Mapping[str, str] | None = None,
    *,
    runner: Callable[[Coroutine[Any, Any, T]], T] = asyncio.run,
) -> T:
    """Run ``body`` against a broker with its data in ``path``."""

    async def main() -> T:
        node = Node(NodeSettings(data=str(path / "data"), port=0, properties=properties or {}))
        await node.start()
        reader, writer = await asyncio.open_connection(*node.address)
        client = Client(node, reader, writer)
        try:
            return await asyncio.wait_for(body(client), HANG_S)
        finally:
            client.close()
            await node.stop()

    return runner(main())


def no_room_for(monkeypatch: pytest.MonkeyPatch, part: str) -> Callable[[RealDisk, str], None]:
    """Let folders with ``part`` in their path find no room on the disk. What makes folders otherwise."""
    whole = RealDisk.make_dirs

    def make_dirs(disk: RealDisk, path: str) -> None:
        if part in path:
            raise OSError(errno.ENOSPC, "No space left on device", path)
        whole(disk, path)

    monkeypatch.setattr(RealDisk, "make_dirs", make_dirs)
    return whole


NO_ID = uuid.UUID(int=0)


def new_topic(name: str, partitions: int = 1, replicas: int = 1, **more: Any) -> dict[str, Any]:
    """A topic of a CreateTopics request."""
    configs = [{"name": key, "value": value} for key, value in more.pop("configs", {}).items()]
    return {
        "name": name,
        "num_partitions": partitions,
        "replication_factor": replicas,
        "assignments": more.pop("assignments", ()),
        "configs": configs,
    } | more


async def create(
    client: Client, *topics: dict[str, Any], version: int = 7, **more: Any
) -> list[dict[str, Any]]:
    """CreateTopics; the result of each topic."""
    fields = {"topics": topics, "timeout_ms": 5_000, "validate_only": False} | more
    answer = await client.ask("CreateTopics", version, fields)
    results: list[dict[str, Any]] = answer["topics"]
    return results


def code(result: Mapping[str, Any]) -> str:
    """The error's name."""
    name: str = result["error_code"].name
    return name
