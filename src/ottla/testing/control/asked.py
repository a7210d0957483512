"""A request to the control port, and what it is about."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

from ottla.node import Node
from ottla.testing.control.fields import Fields
from ottla.testing.faults import Faults
from ottla.testing.running import RunningNodes

T = TypeVar("T")

# How long a request may ask to wait for something, and how long it does if it does not say.
WAIT_MS_MAX, WAIT_MS_DEFAULT = 60_000, 10_000


class Asked(NamedTuple):
    """``path`` has the variable parts of the path. A POST has its fields in the body, others in the query."""

    nodes: RunningNodes
    faults: Faults
    path: Mapping[str, str]
    fields: Fields

    async def aside(self, work: Callable[[], T]) -> T:
        """What ``work`` returns, which may take a while: done in a thread."""
        return await self.node.services.disk.run(work)

    @property
    def node(self) -> Node:
        """The broker's only node."""
        return self.nodes.any

    def timeout_s(self) -> float:
        """How long it asks to wait."""
        return self.fields.whole_or("timeout_ms", WAIT_MS_DEFAULT, 1, WAIT_MS_MAX) / 1000
