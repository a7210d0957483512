"""The shop in a terminal: how far the orders are, who of each group has which partitions, what happened."""

from __future__ import annotations

from collections import Counter

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from examples.messaging import topics
from examples.messaging.observer import STAGES, Observer

COLOURS = ("cyan", "magenta", "yellow", "green", "blue", "red")
BAR_WIDTH = 30
EVENTS_SHOWN = 12
STATE_COLOURS = {"stable": "green", "empty": "dim"}


def draw(observer: Observer, saying: str) -> RenderableType:
    """The whole view."""
    title = f"[bold]a shop of services[/] · {observer.elapsed_s:5.1f} s · {saying}"
    top = Table.grid(expand=True)
    top.add_column(ratio=3)
    top.add_column(ratio=2)
    top.add_row(_stages(observer), _sideways(observer))
    return Panel(Group(top, _groups(observer), _events(observer)), title=title, title_align="left")


def line(observer: Observer, saying: str) -> str:
    """The view in a line, for where there is no terminal."""
    stages = ", ".join(f"{len(observer.seen[topic])} {name}" for topic, name in STAGES.items())
    billing = observer.groups[topics.BILLING]
    return (
        f"{observer.elapsed_s:5.1f} s: {stages}, {len(observer.dead)} dead letters; "
        f"billing: {len(billing.members)} members, lag {billing.lag}; {saying}"
    )


def _stages(observer: Observer) -> RenderableType:
    table = Table.grid(padding=(0, 1))
    orders = max(1, len(observer.seen[topics.ORDERS]))
    for topic, name in STAGES.items():
        count = len(observer.seen[topic])
        filled = round(BAR_WIDTH * min(count, orders) / orders)
        again = observer.again(topic)
        table.add_row(
            name,
            Text("━" * filled, "green") + Text("━" * (BAR_WIDTH - filled), "bright_black"),
            f"{count:5}",
            f"[dim]{again} twice, no harm[/]" if again else "",
        )
    return Panel(table, title="orders", title_align="left", border_style="dim")


def _sideways(observer: Observer) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    for topic in topics.RETRIES:
        table.add_row(topic.removeprefix("shop.billing."), f"{observer.retried[topic]:4} messages")
    table.add_row("dead letters", f"{len(observer.dead):4}")
    reasons = Counter(reason.split(":")[0] for reason in observer.dead.values())
    for reason, count in sorted(reasons.items()):
        table.add_row(f"  [dim]{reason}[/]", f"[dim]{count:4}[/]")
    open_ones = observer.asked_ms.keys() - observer.answered_ms.keys()
    table.add_row("questions", f"{len(observer.asked_ms):4} asked, {len(open_ones)} open")
    table.add_row(
        "answers after", f"{observer.answer_ms_at(0.5):4} ms, 99 % {observer.answer_ms_at(0.99)} ms"
    )
    return Panel(table, title="on the side", title_align="left", border_style="dim")


def _groups(observer: Observer) -> RenderableType:
    table = Table(expand=True, box=None, padding=(0, 1))
    for heading in ("group", "state", "lag", "partitions, in the colour of who has them", "members"):
        table.add_column(heading, header_style="dim", no_wrap=True)
    for name, group in observer.groups.items():
        colours = {client: COLOURS[i % len(COLOURS)] for i, client in enumerate(group.members)}
        state_colour = STATE_COLOURS.get(group.state, "yellow")
        table.add_row(
            name,
            f"[{state_colour}]{group.state}[/]",
            f"[{'bold red' if group.lag > 30 else 'default'}]{group.lag:4}[/]",
            _partitions(group.members, colours),
            Text(" ").join(Text(client, colours[client]) for client in group.members),
        )
    return Panel(table, title="consumer groups", title_align="left", border_style="dim")


def _partitions(members: dict[str, dict[str, list[int]]], colours: dict[str, str]) -> Text:
    """A block for each partition, topic by topic."""
    owners = {(t, p): client for client, owned in members.items() for t, ps in owned.items() for p in ps}
    text, last = Text(), None
    for (topic, _), client in sorted(owners.items()):
        if last not in (None, topic):
            text.append(" ")
        text.append("■ ", colours[client])
        last = topic
    return text


def _events(observer: Observer) -> RenderableType:
    shown = list(observer.events)[-EVENTS_SHOWN:]
    lines = [Text(f"{at_s:6.1f} s  {line}", no_wrap=True, overflow="ellipsis") for at_s, line in shown]
    lines += [Text("")] * (EVENTS_SHOWN - len(lines))
    return Panel(Group(*lines), title="what happened", title_align="left", border_style="dim")
