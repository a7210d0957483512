"""Plans and cluster states as tables, and sizes as people write them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from ottla.cli import output
from ottla.cli.moves.plan import copies
from ottla.cli.moves.requests import View
from ottla.types import TopicPartition

# So many partitions are listed; a plan of more is for a file.
ROWS_MAX = 40
UNITS = ("bytes", "kB", "MB", "GB", "TB")


def size(count: int) -> str:
    """A number of bytes in the unit that suits it."""
    value, unit = float(count), UNITS[0]
    for unit in UNITS:
        if value < 1000 or unit == UNITS[-1]:
            break
        value /= 1000
    return output.counted(count, "byte") if unit == UNITS[0] else f"{value:.1f} {unit}"


def nodes(replicas: Sequence[int]) -> str:
    """Node ids as one word."""
    return ",".join(map(str, replicas))


def show_plan(view: View, planned: Mapping[TopicPartition, Sequence[int]], copied_bytes: int) -> None:
    """What a plan changes: partition by partition, and for each node."""
    current = view.targets()
    rows = [(str(p), nodes(current[p]), nodes(planned[p])) for p in sorted(planned)]
    output.table(("partition", "replicas", "to be"), rows[:ROWS_MAX])
    if len(rows) > ROWS_MAX:
        output.say(f"and {len(rows) - ROWS_MAX} more; --json shows all")
    output.say()
    after = {**current, **planned}
    held, led = (Counter(n for r in a.values() for n in r) for a in (current, after)), _led(current, after)
    before_held, after_held = held
    before_led, after_led = led
    everyone = sorted(view.brokers.keys() | before_held.keys() | after_held.keys())
    output.table(
        ("node", "rack", "replicas", "to be", "prefers", "to be"),
        [
            (
                str(node),
                view.racks.get(node),
                before_held[node],
                after_held[node],
                before_led[node],
                after_led[node],
            )
            for node in everyone
        ],
    )
    count = copies(current, planned)
    output.say()
    output.say(
        f"{output.counted(len(planned), 'partition')} to change; {output.counted(count, 'replica')} to copy"
        + (f", {size(copied_bytes)}" if count else "")
    )


def _led(
    before: Mapping[TopicPartition, Sequence[int]], after: Mapping[TopicPartition, Sequence[int]]
) -> tuple[Counter[int], Counter[int]]:
    """How many partitions each node is the preferred leader of."""
    return Counter(r[0] for r in before.values() if r), Counter(r[0] for r in after.values() if r)
