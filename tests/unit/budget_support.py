"""The largest requests that are accepted, made from their definitions, and how long they hold the loop."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from client_support import let_in

from ottla.broker.pending import Pending
from ottla.node import Node
from ottla.wire.apis import BY_NAME, Api
from ottla.wire.fields import Field, describe
from ottla.wire.messages import decode_response, frame_request, load, read_response_header

# What the element with a number is called, or has as its number, by the name of its field.
Values = Callable[[Field, int], Any]


def array_paths(entity: type[Any], *, bare: bool = False) -> Iterator[list[Field]]:
    """Each way down to an array that has none within; if ``bare`` also to those whose elements could have."""
    for field in describe(entity):
        if field.tag is not None:
            continue
        deeper = list(array_paths(field.entity, bare=bare)) if field.entity is not None else []
        yield from ([field, *path] for path in deeper)
        if field.array and (bare or not deeper):
            yield [field]


def largest(api: Api, version: int, values: Values, *, bare: bool = False) -> Iterator[tuple[str, bytes]]:
    """Requests with as many elements as there may be: in each array, with one or with many above it; if
    ``bare`` also with elements that have none within."""
    entity = load(api.schema, version, "request")
    for path in array_paths(entity, bare=bare) or [[]]:
        arrays = [field for field in path if field.array]
        for wide in {False, len(arrays) > 1}:
            name = f"{api.name} v{version} {'.'.join(field.name for field in path)}{' wide' if wide else ''}"
            levels = len(arrays)
            top = api.elements_max // levels if wide else api.elements_max - levels + 1
            counter = iter(range(1 << 30))
            fields = filled(entity, path, top, wide, values, counter)
            yield name, frame_request(api.key, version, 1, "client", fields)[4:]


def filled(
    entity: type[Any], path: list[Field], top: int, wide: bool, values: Values, counter: Iterator[int]
) -> dict[str, Any]:
    """A message whose arrays along ``path`` are full: the first of them if ``wide``, else the last."""
    number = next(counter)
    made: dict[str, Any] = {}
    for field in describe(entity):
        if field.tag is not None:
            continue
        on_path = bool(path) and field.name == path[0].name
        if not on_path:
            made[field.name] = () if field.array else plain(field, values, number)
            continue
        count = top if not field.array or wide or not any(step.array for step in path[1:]) else 1
        below = 1 if wide and field.array else top
        each = [
            values(field, next(counter))
            if field.entity is None
            else filled(field.entity, path[1:], below, wide, values, counter)
            for _ in range(count if field.array else 1)
        ]
        made[field.name] = each if field.array else each[0]
    return made


def plain(field: Field, values: Values, number: int) -> Any:
    if field.entity is not None:
        return None if field.nullable else filled(field.entity, [], 0, False, values, iter([number]))
    return values(field, number)


class Watch:
    """CPU seconds of the longest step of the running loop, and how many there were.

    Several may watch at once, and end in any order. A step counts that is whole within: where one watch
    follows another, what is done between them (a collection of garbage) is nobody's.
    """

    _watching: ClassVar[list[Watch]] = []
    _run = asyncio.events.Handle._run

    def __init__(self) -> None:
        self.longest_s = 0.0
        self.steps = 0

    @staticmethod
    def _timed(handle: asyncio.Handle) -> None:
        watching = Watch._watching.copy()
        started = time.thread_time()
        Watch._run(handle)
        took_s = time.thread_time() - started
        for watch in watching:
            if watch in Watch._watching:
                watch.longest_s = max(watch.longest_s, took_s)
                watch.steps += 1

    def __enter__(self) -> Watch:
        self._watching.append(self)
        asyncio.events.Handle._run = self._timed  # type: ignore[method-assign]
        return self

    def __exit__(self, *error: object) -> None:
        self._watching.remove(self)
        if not self._watching:
            asyncio.events.Handle._run = Watch._run  # type: ignore[method-assign]


CLIENT = let_in()


async def longest_step(node: Node, frame: bytes) -> tuple[float, bytes]:
    """(CPU seconds of the longest step that a request takes, its answer)."""
    await asyncio.sleep(0)
    # A collection comes into whichever step, and takes as long as there are objects, not as that step works.
    # (None is made before either: in a process that has run thousands of tests it takes longer than most.)
    gc.disable()
    try:
        with Watch() as watch:
            started = time.thread_time()
            answer = node._listeners.servers[0].handle(CLIENT, frame)
            first_s = time.thread_time() - started
            pieces = await asyncio.wait_for(answer, 60) if isinstance(answer, Pending) else answer
    finally:
        gc.enable()
    return max(first_s, watch.longest_s), b"".join(pieces or ())


async def ask(node: Node, name: str, version: int, fields: dict[str, Any]) -> Any:
    """The answer to a request, past the pipeline."""
    key = BY_NAME[name].key
    _, data = await longest_step(node, frame_request(key, version, 1, "client", fields)[4:])
    return decode_response(key, version, data, read_response_header(key, version, data[4:])[1] + 4)
