"""A step of the transaction machine."""

from __future__ import annotations

from collections.abc import Callable, Generator

from ottla.coordinators.runtime import step
from ottla.coordinators.transactions.settings import TransactionConfig


class Step(step.Step):
    """A step that knows what the operator has set, at which level of the feature transaction.version the
    cluster is, and where new producer ids come from."""

    __slots__ = ("_take_id", "config", "level")

    def __init__(
        self,
        now_ms: int,
        wall_ms: int,
        config: TransactionConfig,
        level: int,
        take_id: Callable[[], int | None],
    ) -> None:
        super().__init__(now_ms, wall_ms)
        self.config = config
        self.level = level
        self._take_id = take_id

    def take_id(self) -> int | None:
        """A producer id that nobody has had; None where there is none at hand."""
        return self._take_id()


# As the runtime's, of such steps.
Pieces = Generator[None, Step, None]
