"""docs/pictures/top-*.svg: what `ottla top` draws of a cluster that is made up here.

`python scripts/top_pictures.py` writes them anew. They have no fonts of their own, so that they load nothing.
"""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

from rich.console import Console
from rich.style import Style as RichStyle
from rich.terminal_theme import MONOKAI
from rich.text import Text

from ottla.cli.top.look import Look, press
from ottla.cli.top.picture import Seen, Style, draw
from ottla.cli.top.snapshot import Broker, Connection, Group, Listened, Measure, Partition, Snapshot
from ottla.types import TopicPartition

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "pictures"
WIDTH, HEIGHT = 80, 13
FONTS = re.compile(r"\s*@font-face \{.*?\}\n", re.DOTALL)

# Name, partitions, messages a second, bytes of each.
TOPICS = [
    ("orders", 6, 5_230, 212), ("clicks", 12, 48_100, 74), ("payments", 3, 412, 540),
    ("inventory", 6, 96, 150), ("audit", 3, 0, 300),
]  # fmt: skip
# Name, state, members, the topic, lag, its change in a second.
GROUPS = [
    ("fraud-detection", "Stable", 3, "payments", 18_400, 37.5),
    ("clickstream-hourly", "Stable", 12, "clicks", 912_000, -8_150.0),
    ("billing", "Stable", 4, "orders", 214, -3.0),
    ("search-index", "PreparingRebalance", 6, "inventory", 1_930, 96.0),
    ("nightly-export", "Empty", 0, "orders", 5_310_000, 5_230.0),
    ("notifications", "Stable", 2, "orders", 0, 0.0),
]
# Node, host, client id, user, requests, busy ms and bytes in and out a second, what waits, unsent bytes.
CLIENTS = [
    (2, "10.0.3.17", "legacy-loader", "User:loader", 2_930.0, 214.5, 1_240_000.0, 96_000.0, None, 0),
    (1, "10.0.3.40", "clickstream-hourly-7", "User:clicks", 212.0, 61.2, 4e4, 9_600_000.0, 310.0, 1_310_720),
    (1, "10.0.2.11", "shop-web-1", "User:shop", 812.0, 38.9, 1_090_000.0, 40_000.0, None, 0),
    (2, "10.0.2.12", "shop-web-2", "User:shop", 790.0, 37.1, 1_060_000.0, 39_000.0, 4.0, 0),
    (1, "10.0.4.5", "fraud-1", "User:fraud", 20.0, 2.1, 2_400.0, 88_000.0, 480.0, 0),
]  # fmt: skip


def cluster() -> Snapshot:
    """Three nodes, of which one is away."""
    partitions, ends, sizes = {}, {}, {}
    for topic, count, rate, message_bytes in TOPICS:
        for number in range(count):
            name = TopicPartition(topic, number)
            leader = 1 + number % 2
            partitions[name] = Partition(leader, (leader, 3 - leader, 3), (leader, 3 - leader))
            ends[name] = Measure(0.0, 10_000_000, rate / count)
            size = rate * message_bytes * 7_200 // count
            sizes[name] = Measure(0.0, size, rate * message_bytes / count)
    groups = {
        name: Group(
            state, "classic", 1 + members % 2, members,
            {TopicPartition(topic, 0): Measure(0.0, 1, max(0.0, 400.0 * members - per_s))},
            Measure(0.0, lag, per_s), 0.0,
        )
        for name, state, members, topic, lag, per_s in GROUPS
    }  # fmt: skip
    connections = tuple(
        Connection(
            node, host, 50_000, client, user, "SASL_SSL", requests, busy, came, went, unsent, waits
        )
        for node, host, client, user, requests, busy, came, went, waits, unsent in CLIENTS
    )  # fmt: skip
    return Snapshot(
        at_s=0.0,
        cluster_id="q1Zs0VbTQkWcZ3n0J9d2Xw",
        controller=1,
        brokers={
            1: Broker("10.0.1.1", 9092, "a"),
            2: Broker("10.0.1.2", 9092, "b"),
            3: Broker("10.0.1.3", 9092, "c", is_fenced=True),
        },
        partitions=partitions,
        ends=ends,
        sizes=sizes,
        held_bytes={1: 21_000_000_000, 2: 20_900_000_000},
        groups=groups,
        listened=Listened(connections, ("10.0.1.1:9308", "10.0.1.2:9308")),
    )


def picture(key: str) -> str:
    """The panel of a key, as SVG."""
    console = Console(
        record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="standard"
    )
    seen = Seen(cluster(), press(Look(), key, key, HEIGHT, 0), taken="12:00:04")
    for line in draw(seen, WIDTH, HEIGHT):
        console.print(Text.assemble(*((text, _style(style)) for text, style in line)), no_wrap=True)
    svg = console.export_svg(title="ottla top", theme=MONOKAI, unique_id="top")
    return FONTS.sub("", svg)


def _style(style: Style) -> RichStyle:
    return RichStyle.parse(style.value or "none")


def main() -> None:
    for key, name in (("1", "brokers"), ("2", "topics"), ("3", "groups"), ("4", "clients")):
        path = FOLDER / f"top-{name}.svg"
        path.write_text(picture(key))
        print(f"wrote {path.relative_to(FOLDER.parents[1])}", file=sys.stderr)


if __name__ == "__main__":
    main()
