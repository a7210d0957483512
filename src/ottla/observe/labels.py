"""Which of many names get a label of their own, so that a scrape is bounded whatever clients name.

Who comes while there is room keeps a label for as long as there is such a thing; all others are one, and
stay in that also where there is room later: what is summed up there must not become less.
"""

from __future__ import annotations

from collections.abc import Set

# The label of all that have none of their own. No topic can be called so; a group can, and is with the
# others then.
OTHERS = "…others"


class Labels:
    """The names of one kind."""

    __slots__ = ("_known", "_own", "count_max")

    def __init__(self, count_max: int = 0) -> None:
        # How many may have one of their own. Where it becomes less, who has one keeps it.
        self.count_max = count_max
        self._known: dict[str, str] = {}
        self._own = 0

    def of(self, name: str) -> str:
        """The label of a name."""
        label = self._known.get(name)
        if label is None:
            is_own = self._own < self.count_max and name != OTHERS
            label = self._known[name] = name if is_own else OTHERS
            self._own += is_own
        return label

    def known(self, name: str) -> str | None:
        """The label of a name, if it has one."""
        return self._known.get(name)

    def keep(self, names: Set[str], left: Set[str] = frozenset()) -> None:
        """Forget all names but these; of those that are gone, and something is ``left`` of, the ones that are
        among the others: their sums stay there."""
        if self._known.keys() <= names:
            return
        self._known = {
            name: label
            for name, label in self._known.items()
            if name in names or (label == OTHERS and name in left)
        }
        self._own = sum(1 for label in self._known.values() if label != OTHERS)
