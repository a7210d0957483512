"""A node's quotas, of which nothing is loaded before there is one: most nodes never have any."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, final

if TYPE_CHECKING:
    from ottla.security.quotas import Quotas
    from ottla.security.rates import Window


@final
class NodeQuotas:
    """``made`` are the quotas; None as long as there has been none."""

    __slots__ = ("_get", "made", "throttled", "throttled_ms")

    def __init__(self, get: Callable[[str], Any]) -> None:
        """``get``: the node's settings."""
        self._get = get
        self.made: Quotas | None = None
        # By kind of quota: how often clients were made to wait, and for how long in all.
        self.throttled: Counter[str] = Counter()
        self.throttled_ms: Counter[str] = Counter()

    def note(self, kind: str, throttle_ms: int) -> None:
        """A client has to wait, if so."""
        if throttle_ms > 0:
            self.throttled[kind] += 1
            self.throttled_ms[kind] += throttle_ms

    def make(self) -> Quotas:
        """The quotas, for whoever has one to put in force."""
        if self.made is None:
            from ottla.security.quotas import Quotas

            self.made = Quotas(self._window(""), self._window("controller."))
        return self.made

    def _window(self, prefix: str) -> Window:
        from ottla.security.rates import Window

        seconds = self._get(f"{prefix}quota.window.size.seconds")
        return Window(self._get(f"{prefix}quota.window.num"), seconds * 1000)
