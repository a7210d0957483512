"""What the page may tell: the one definition of an event. What does not fit it does not come into the topic.

The collector checks with it, GET /schema gives it as JSON Schema. No event has a place for a name, an
address or an e-mail: of a form it says which, and how many fields were filled in.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

import msgspec
from msgspec import Meta

EVENTS_PER_BATCH_MAX = 100

Id = Annotated[str, Meta(pattern=r"^[0-9a-f-]{8,36}$")]
Name = Annotated[str, Meta(pattern=r"^[a-z0-9-]{1,40}$")]
Page = Annotated[str, Meta(pattern=r"^/[a-z0-9/-]{0,80}$")]
# People search for e-mail addresses and card numbers: not kept.
PERSONAL = re.compile(r"\S+@\S+|\d(?:[ -]?\d){5,}")


class Event(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True, tag_field="type"):
    """What every event has. `id` is the same when a batch is sent again; `at_ms` is the visitor's clock."""

    id: Id
    at_ms: Annotated[int, Meta(ge=0, le=2**53)]
    page: Page


class View(Event, frozen=True, kw_only=True, tag="view"):
    """A page was shown."""


class Product(Event, frozen=True, kw_only=True, tag="product"):
    """A product was looked at."""

    product: Name


class Click(Event, frozen=True, kw_only=True, tag="click"):
    """Something was clicked: the name that the page gives it."""

    target: Name


class Search(Event, frozen=True, kw_only=True, tag="search"):
    """A search, and how much it found."""

    query: Annotated[str, Meta(max_length=80)]
    results: Annotated[int, Meta(ge=0, le=10_000)]


class Cart(Event, frozen=True, kw_only=True, tag="cart"):
    """A product was put into the cart."""

    product: Name
    quantity: Annotated[int, Meta(ge=1, le=99)]


class Checkout(Event, frozen=True, kw_only=True, tag="checkout"):
    """The checkout was opened with something in the cart."""


class Form(Event, frozen=True, kw_only=True, tag="form"):
    """A form was submitted, and how many of its fields were filled in; never with what."""

    form: Name
    fields: Annotated[int, Meta(ge=0, le=50)]


AnyEvent = View | Product | Click | Search | Cart | Checkout | Form


class Batch(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What a page sends in one request."""

    events: Annotated[list[AnyEvent], Meta(min_length=1, max_length=EVENTS_PER_BATCH_MAX)]


_decoder = msgspec.json.Decoder(Batch)


def read_batch(body: bytes) -> list[AnyEvent]:
    """The events in a request; ValueError (msgspec's) says what is wrong and where."""
    return _decoder.decode(body).events


def as_record(event: AnyEvent, session: str, received_ms: int) -> bytes:
    """The event as it goes into the topic; the collector says which session, and when (ms since 1970)."""
    fields: dict[str, Any] = msgspec.to_builtins(event)
    if isinstance(event, Search):
        fields["query"] = PERSONAL.sub("…", event.query.strip().lower())
    return msgspec.json.encode({**fields, "session": session, "received_ms": received_ms})
