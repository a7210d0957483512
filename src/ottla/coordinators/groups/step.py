"""A step of the group machine."""

from __future__ import annotations

from collections.abc import Generator

from ottla.coordinators.groups.settings import GroupConfig
from ottla.coordinators.runtime import step


class Step(step.Step):
    """A step that knows what the operator has set."""

    __slots__ = ("config",)

    def __init__(self, now_ms: int, wall_ms: int, config: GroupConfig) -> None:
        super().__init__(now_ms, wall_ms)
        self.config = config


# As the runtime's, of such steps.
Pieces = Generator[None, Step, None]
