"""Files and folders as they are in memory and on a simulated disk: what there is between the two, and what a
loss of power leaves of it."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

# Files that follow from the logs, or only save time.
HINTS = (".index", ".timeindex", ".snapshot", "leader-epoch-checkpoint", "offset-checkpoint")


class Inode:
    """A file: what the page cache has, what is on the disk, and the writes between the two."""

    __slots__ = ("data", "durable", "modified_ms", "pending", "whole")

    def __init__(self, now_ms: int) -> None:
        self.data = bytearray()
        self.durable = bytearray()
        self.modified_ms = now_ms
        # (position, bytes) written since the last sync; bytes None: cut off at the position.
        self.pending: list[tuple[int, bytes | None]] = []
        # Written by ``write_file``: there as a whole or not at all.
        self.whole = False

    def write(self, position: int, data: bytes) -> None:
        _put(self.data, position, data)
        self.pending.append((position, data))

    def truncate(self, size: int) -> None:
        _cut(self.data, size)
        self.pending.append((size, None))

    def sync(self) -> None:
        self._make_durable(len(self.pending))

    def lose_pending(self) -> None:
        """A sync failed: the cache shows what was written, and holds it to be on the disk."""
        lost = [(position, data if data is None else bytes(len(data))) for position, data in self.pending]
        self.pending = lost

    def lose_power(self, rng: Random) -> None:
        kept = rng.randrange(len(self.pending) + 1)
        torn = self.pending[kept] if kept < len(self.pending) else None
        self._make_durable(kept)
        if torn is not None and torn[1] is not None and not self.whole and rng.random() < 0.7:
            written = torn[1]
            _put(self.durable, torn[0], written[: rng.randrange(len(written) + 1)])
            if rng.random() < 0.3:
                # The size was written, the bytes were not.
                _put(self.durable, len(self.durable), bytes(rng.randrange(1, 4096)))
        self.pending = []
        self.data = bytearray(self.durable)

    def _make_durable(self, count: int) -> None:
        for position, data in self.pending[:count]:
            if data is None:
                _cut(self.durable, position)
            else:
                _put(self.durable, position, data)
        del self.pending[:count]


def _put(target: bytearray, position: int, data: bytes) -> None:
    if position > len(target):
        target += bytes(position - len(target))
    target[position : position + len(data)] = data


def _cut(target: bytearray, size: int) -> None:
    if size < len(target):
        del target[size:]
    else:
        target += bytes(size - len(target))


class Folder:
    """A folder: its entries as they are, as they are on the disk, and the changes between the two."""

    __slots__ = ("durable", "entries", "pending")

    def __init__(self) -> None:
        self.entries: dict[str, Node] = {}
        self.durable: dict[str, Node] = {}
        # Each is one step, which is done or is not: names and what they stand for then, None for nothing.
        self.pending: list[dict[str, Node | None]] = []

    def change(self, step: dict[str, Node | None]) -> None:
        _apply(self.entries, step)
        self.pending.append(step)

    def sync(self) -> None:
        self.durable = dict(self.entries)
        self.pending.clear()

    def lose_power(self, rng: Random) -> None:
        for step in self.pending[: rng.randrange(len(self.pending) + 1)]:
            _apply(self.durable, step)
        self.pending.clear()
        self.entries = dict(self.durable)
        for node in self.entries.values():
            node.lose_power(rng)


Node = Inode | Folder


def _apply(entries: dict[str, Node], step: dict[str, Node | None]) -> None:
    for name, node in step.items():
        if node is None:
            entries.pop(name, None)
        else:
            entries[name] = node


def files_below(node: Node, path: str) -> Iterator[tuple[str, Inode]]:
    if isinstance(node, Inode):
        yield path, node
        return
    for name, below in sorted(node.entries.items()):
        yield from files_below(below, f"{path}/{name}")


def is_hint(path: str) -> bool:
    return path.endswith(HINTS) and not path.endswith("log-start-offset-checkpoint")


def size_of(folder: Folder) -> int:
    return sum(
        len(node.data) if isinstance(node, Inode) else size_of(node) for node in folder.entries.values()
    )


def sync_below(folder: Folder) -> None:
    folder.sync()
    for node in folder.entries.values():
        if isinstance(node, Inode):
            node.sync()
        else:
            sync_below(node)
