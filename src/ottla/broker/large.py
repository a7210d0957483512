"""Answers that are large, or much work: made and written piece by piece, with others' requests in between.

The response to a request with many elements is written so by the gate. A handler that finds that it has much
to say to a small one returns `in_pieces` of its fields. Arrays in them may be `Lazy`:
each element is made when its turn comes, and forgotten when it is written. What it makes them from must be
looked up anew for each, since other requests have been handled in between.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Sequence, Sized
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ottla.broker.request import CloseConnection, Fields, Framed, RequestContext
from ottla.wire.apis import FETCH
from ottla.wire.messages import FRAME_BYTES_MAX, RESPONSE_BYTES_MAX, response_in_pieces

if TYPE_CHECKING:
    from ottla.security.acl_bindings import Operation, ResourceType

__all__ = (
    "AT_ONCE_MAX",
    "Fields",
    "Framed",
    "Lazy",
    "Pace",
    "allowed",
    "are_usual",
    "chunks",
    "given_away",
    "in_pieces",
    "is_large",
    "listed",
    "made",
    "mapped",
    "several",
)

# How many elements are handled at once, in a request as in its answer. A handler takes up to 20 microseconds
# for each.
AT_ONCE_MAX = 250

# The same where there is little to do with each.
MADE_AT_ONCE = 1_000

# Groups are found by a hash of their ids, which takes up to 50 nanoseconds for each character. Ids have some
# dozens of them; those that are longer than this are nobody's habit.
USUAL_LENGTH_MAX = 256
CHARACTERS_AT_ONCE_MAX = 100_000

T = TypeVar("T")
R = TypeVar("R")


class Lazy(Generic[T]):
    """An array of ``count`` elements that are still to be made, to be gone through once."""

    __slots__ = ("_count", "_elements")

    def __init__(self, count: int, elements: Iterable[T]) -> None:
        self._count = count
        self._elements = elements

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[T]:
        return iter(self._elements)


class Pace:
    """How far one request's work goes at a stretch: so many elements, or so long, if that is over first."""

    __slots__ = ("_count_max", "_ends_ms", "_left", "_slices", "_turn")

    def __init__(self, ctx: RequestContext, count_max: int = AT_ONCE_MAX) -> None:
        self._count_max = count_max
        self._slices = ctx.services.slices
        self._turn = ctx.services.turn
        self._begin()

    def _begin(self) -> None:
        self._left = self._count_max
        self._ends_ms = self._turn.deadline_ms()

    def is_over(self) -> bool:
        """Count an element that is done; whether others have their turn before the next."""
        self._left -= 1
        return self._left <= 0 or self._turn.is_over(self._ends_ms)

    async def pause(self) -> None:
        """Let others have their turn, and begin anew. What was looked up before may be gone."""
        await self._slices.pause()
        self._begin()


def is_large(ctx: RequestContext) -> bool:
    """Whether a request has more elements than are handled at once."""
    return ctx.elements > AT_ONCE_MAX


async def allowed(
    ctx: RequestContext,
    operation: Operation,
    kind: ResourceType,
    names: Iterable[str],
    *,
    quietly: bool = False,
) -> Container[str]:
    """Those of a request's names to whose resources the client may do something, with others' requests in
    between if they are many. Each is asked for once; ``quietly`` as ``RequestContext.may``."""
    if ctx.client.permissions is None:
        return _ANYTHING
    found: set[str] = set()
    seen: set[str] = set()
    pace = Pace(ctx)
    for name in names:
        if name in seen:
            continue
        seen.add(name)
        if ctx.may(operation, kind, name, quietly=quietly):
            found.add(name)
        if pace.is_over():
            await pace.pause()
    return found


class _Anything:
    """All names there are."""

    def __contains__(self, name: object) -> bool:
        return True


_ANYTHING = _Anything()


def several(ctx: RequestContext, make: Callable[[T], Fields], elements: Sequence[T]) -> Sized:
    """An element of the answer for each of the request's: made when its turn comes if these are many."""
    return mapped(make, elements) if is_large(ctx) else listed(make, elements)


def listed(make: Callable[[T], Fields], elements: Sequence[T]) -> Sized:
    """An element for each of these, made at once."""
    return [make(element) for element in elements]


async def in_pieces(ctx: RequestContext, fields: Fields) -> Framed:
    """The response of these fields, made piece by piece.

    CloseConnection where clients have so much to take already that there is no room for it. A Fetch's was
    kept to the room that there was when its records were read, and goes out in any case.
    """
    memory = ctx.services.memory
    is_fetch = ctx.api_key == FETCH
    pieces = response_in_pieces(
        ctx.header, fields, bytes_max=FRAME_BYTES_MAX if is_fetch else RESPONSE_BYTES_MAX
    )
    held = 0
    try:
        while True:
            try:
                size = next(pieces)
            except StopIteration as end:
                return Framed(end.value)
            # What there is of it by now is not in its own way.
            memory.unsent_bytes -= held
            held = 0
            if size > memory.room_bytes and not is_fetch:
                raise CloseConnection("no room for its answer: others have not taken theirs")
            memory.unsent_bytes += size
            held = size
            await ctx.services.slices.pause()
    finally:
        # From here on it is counted where it waits to be sent.
        memory.unsent_bytes -= held


def given_away(elements: list[T]) -> Lazy[T]:
    """These, each of which the list forgets when its turn comes: they are many to be forgotten at once."""

    def one_by_one() -> Iterator[T]:
        elements.reverse()
        while elements:
            yield elements.pop()

    return Lazy(len(elements), one_by_one())


async def made(ctx: RequestContext, make: Callable[[T], R], elements: Sequence[T]) -> list[R]:
    """What is made of each of these, with others' requests in between if they are many."""
    out: list[R] = []
    for first in range(0, len(elements), MADE_AT_ONCE):
        out += map(make, elements[first : first + MADE_AT_ONCE])
        if len(elements) > MADE_AT_ONCE:
            await ctx.services.slices.pause()
    return out


def are_usual(names: Iterable[str]) -> bool:
    """Whether no name is so long that it counts as more than one."""
    return all(len(name) <= USUAL_LENGTH_MAX for name in names)


def chunks(names: Sequence[str], count_max: int = AT_ONCE_MAX) -> Iterator[Sequence[str]]:
    """The names in their order, as many together as may be handled at once."""
    start = characters = 0
    for place, name in enumerate(names):
        if place - start == count_max or (characters and characters + len(name) > CHARACTERS_AT_ONCE_MAX):
            yield names[start:place]
            start, characters = place, 0
        characters += len(name)
    if start < len(names):
        yield names[start:]


def mapped(make: Callable[[Any], Fields], elements: Sequence[Any]) -> Lazy[Fields]:
    """An element for each of these, made when its turn comes."""
    return Lazy(len(elements), map(make, elements))
