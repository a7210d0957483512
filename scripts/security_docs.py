"""docs/SECURITY.md: what is written by hand (security_page.txt), and the table of what each API demands."""

from __future__ import annotations

from pathlib import Path

from ottla.security.demands import DEMANDS, Demand
from ottla.wire.apis import APIS

TEXT = Path(__file__).with_name("security_page.txt")

HEAD = """
## What each API demands

This table is generated from `src/ottla/security/demands.py`, which the broker uses. *Told*: if the right is
missing, the whole request is refused, or only this resource, or the resource is left out of the answer.

| API | Operation | Resource | When | Told |
| --- | --- | --- | --- | --- |
"""


def render() -> str:
    """The page."""
    rows = [_row(key, demand) for key in sorted(APIS) for demand in DEMANDS[key] or (None,)]
    return TEXT.read_text() + HEAD + "".join(rows)


def _row(key: int, demand: Demand | None) -> str:
    if demand is None:
        return f"| {APIS[key].name} | none | | | |\n"
    operation = demand.operation.name
    if demand.or_else is not None:
        other, resource = demand.or_else
        operation += f", or {other.name} of {resource.name.lower().replace('_', ' ')}"
    kind = demand.resource_type.name.lower().replace("_", " ")
    return f"| {APIS[key].name} | {operation} | {kind} | {demand.when} | {demand.refusal.value} |\n"
