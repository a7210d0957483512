"""docs/GROWTH.md and its plots, from the results of `bench/growth`."""

# ruff: noqa: E501 - prose

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drawing import Line, chart
from figures import two_digits

Results = Mapping[str, Any]
PICTURES = "pictures/growth"


@dataclass(frozen=True, slots=True)
class Row:
    """A figure: its name in the results, its label and its unit."""

    name: str
    label: str
    unit: str


@dataclass(frozen=True, slots=True)
class Plot:
    """What is drawn together: figures, with the name of each line."""

    name: str
    title: str
    y_label: str
    lines: tuple[tuple[str, str], ...]
    log_y: bool = True


@dataclass(frozen=True, slots=True)
class Section:
    """An axis on the page."""

    axis: str
    title: str
    x_label: str
    about: str
    plots: tuple[Plot, ...]
    rows: tuple[Row, ...]


MEMORY = Row("memory_mb", "memory", "MB")
IDLE = Row("idle_cpu_percent", "CPU while nobody asks", "% of a core")
STOP = Row("stop_s", "clean stop", "s")
START = Row("start_s", "start after it", "s")
KILLED = Row("start_killed_s", "start after SIGKILL", "s")
LAG = Row("lag_max_ms", "the event loop was late by, at most", "ms")
P50 = Row("produce_p50_ms", "a producer beside: p50", "ms")
P99 = Row("produce_p99_ms", "p99", "ms")
STARTS = Plot(
    "start",
    "Until it serves again",
    "seconds",
    (
        ("start_killed_s", "start after SIGKILL"),
        ("start_s", "start after a clean stop"),
        ("stop_s", "clean stop"),
    ),
)
MEMORIES = Plot("memory", "Memory", "MB", (("memory_mb", "resident"),), log_y=False)

SECTIONS = (
    Section(
        "partitions",
        "Partitions",
        "partitions",
        "Topics of 100 partitions with a message in each. All of them are asked for at once: Metadata; a Fetch without a "
        "session, which names every partition each time, as librdkafka does; a Fetch in a session, which names none. "
        "None of them has anything new. The producer sends 500 messages a second to a partition of its own: beside nobody; beside a "
        "consumer of all partitions without a session, which is woken by each of its messages; and beside one with "
        "a session. Before the stop each partition has got one more message, and before the SIGKILL as well.",
        (
            STARTS,
            MEMORIES,
            Plot(
                "asked",
                "All partitions in one request: p50",
                "ms",
                (
                    ("fetch_p50_ms", "Fetch without a session"),
                    ("session_p50_ms", "Fetch in one"),
                    ("metadata_p50_ms", "Metadata"),
                ),
            ),
            Plot(
                "beside",
                "A producer beside a consumer of all: p99",
                "ms",
                (
                    ("produce_by_fetch_p99_ms", "without a session"),
                    ("produce_by_session_p99_ms", "with one"),
                    ("produce_p99_ms", "no consumer"),
                ),
            ),
        ),
        (
            Row("create_s", "made, and have leaders", "s"),
            Row("fill_s", "first message in each", "s"),
            MEMORY,
            IDLE,
            Row("metadata_p50_ms", "Metadata of all: p50", "ms"),
            Row("metadata_cpu_ms", "its CPU", "ms"),
            Row("fetch_p50_ms", "Fetch of all, no session: p50", "ms"),
            Row("fetch_cpu_ms", "its CPU", "ms"),
            Row("session_p50_ms", "Fetch in a session of all: p50", "ms"),
            Row("session_cpu_ms", "its CPU", "ms"),
            P50,
            P99,
            Row("produce_by_fetch_p50_ms", "beside a consumer of all, no session: p50", "ms"),
            Row("produce_by_fetch_p99_ms", "p99", "ms"),
            Row("produce_by_session_p50_ms", "beside one with a session: p50", "ms"),
            Row("produce_by_session_p99_ms", "p99", "ms"),
            LAG,
            STOP,
            START,
            KILLED,
        ),
    ),
    Section(
        "groups",
        "Consumer groups",
        "groups",
        "Groups without members that each have committed an offset, as programs do that assign partitions themselves. "
        "Then four connections go on committing, one group after the other. A start is over when an offset can be "
        "asked for.",
        (
            Plot("cpu", "An offset commit: broker CPU", "µs", (("commit_cpu_us", "each"),), log_y=False),
            Plot(
                "commit",
                "An offset commit, on four connections",
                "ms",
                (("commit_p50_ms", "p50"), ("commit_p99_ms", "p99")),
            ),
            MEMORIES,
            STARTS,
        ),
        (
            MEMORY,
            IDLE,
            Row("commit_p50_ms", "offset commit: p50", "ms"),
            Row("commit_p99_ms", "p99", "ms"),
            Row("commit_cpu_us", "its CPU", "µs"),
            Row("list_p50_ms", "ListGroups: p50", "ms"),
            LAG,
            STOP,
            START,
            KILLED,
        ),
    ),
    Section(
        "ids",
        "Transactional ids",
        "transactional ids",
        "Producers that have begun, each with an id of its own. Then they begin again, over four connections, one after the "
        "other. A start is over when one of them can.",
        (
            Plot("cpu", "InitProducerId: broker CPU", "µs", (("init_cpu_us", "each"),), log_y=False),
            Plot(
                "init",
                "InitProducerId, on four connections",
                "ms",
                (("init_p50_ms", "p50"), ("init_p99_ms", "p99")),
            ),
            MEMORIES,
            STARTS,
        ),
        (
            MEMORY,
            IDLE,
            Row("init_p50_ms", "InitProducerId: p50", "ms"),
            Row("init_p99_ms", "p99", "ms"),
            Row("init_cpu_us", "its CPU", "µs"),
            LAG,
            STOP,
            START,
            KILLED,
        ),
    ),
    Section(
        "connections",
        "Connections",
        "connections",
        "First all of them are open and idle, and one more producer sends 500 messages a second. Then each of them "
        "sends messages of 100 bytes, one after the other, as fast as they are acknowledged.",
        (
            MEMORIES,
            Plot(
                "cpu",
                "All of them busy: broker CPU of a Produce",
                "µs",
                (("busy_cpu_us", "each"),),
                log_y=False,
            ),
            Plot(
                "beside",
                "A producer beside idle ones",
                "ms",
                (("produce_p50_ms", "p50"), ("produce_p99_ms", "p99")),
            ),
            Plot("busy", "All of them busy: latency", "ms", (("busy_p50_ms", "p50"), ("busy_p99_ms", "p99"))),
        ),
        (
            MEMORY,
            Row("connection_kb", "memory of each", "kB"),
            IDLE,
            P50,
            P99,
            Row("busy_per_s", "all busy: requests", "/s"),
            Row("busy_p50_ms", "p50", "ms"),
            Row("busy_p99_ms", "p99", "ms"),
            Row("busy_cpu_us", "CPU of each", "µs"),
            LAG,
            STOP,
        ),
    ),
    Section(
        "consumers",
        "Consumers of one producer",
        "consumers",
        "250 messages of 100 bytes a second to one partition, and consumers that each wait for them, without a session and, "
        "where it was measured, with one. "
        "A message is timed from when it is sent until each consumer has it. The CPU time of a delivery includes its share "
        "of the Produce.",
        (
            Plot(
                "deliver",
                "From the producer to each consumer",
                "ms",
                (("deliver_p50_ms", "p50"), ("deliver_session_p50_ms", "p50 with a session")),
            ),
            Plot(
                "cpu",
                "Broker CPU of a delivery",
                "µs",
                (("deliver_cpu_us", "each"), ("deliver_session_cpu_us", "with a session")),
                log_y=False,
            ),
        ),
        (
            Row("deliver_p50_ms", "producer to consumer: p50", "ms"),
            Row("deliver_p99_ms", "p99", "ms"),
            Row("deliver_cpu_us", "CPU of a delivery", "µs"),
            Row("deliver_session_p50_ms", "with a session: p50", "ms"),
            Row("deliver_session_p99_ms", "p99", "ms"),
            Row("deliver_session_cpu_us", "CPU of a delivery", "µs"),
            MEMORY,
            LAG,
        ),
    ),
    Section(
        "log",
        "The size of a log",
        "MB in one partition",
        "Written in batches of 1 MB, read from memory; killed, and started; read again from the disk, the kernel having "
        "been told to forget it, while a producer sends 500 messages a second; stopped, and started.",
        (
            STARTS,
            Plot(
                "beside",
                "A producer beside: p99",
                "ms",
                (("produce_by_cold_p99_ms", "a reader of cold data"), ("produce_p99_ms", "nobody")),
            ),
            Plot(
                "cpu",
                "Broker CPU of a gigabyte",
                "seconds",
                (("write_cpu_s_per_gb", "written"), ("read_cpu_s_per_gb", "read")),
                log_y=False,
            ),
        ),
        (
            Row("write_cpu_s_per_gb", "written: CPU of a GB", "s"),
            Row("read_cpu_s_per_gb", "read from memory: CPU of a GB", "s"),
            MEMORY,
            Row("lookup_p50_ms", "an offset by its time: p50", "ms"),
            P50,
            P99,
            Row("produce_by_cold_p50_ms", "beside a reader of cold data: p50", "ms"),
            Row("produce_by_cold_p99_ms", "p99", "ms"),
            LAG,
            STOP,
            START,
            KILLED,
        ),
    ),
)

HEAD = """\
# How a broker grows

Made by `bench/growth` on {date}: `{command}`. {machine}

| broker | version | |
| --- | --- | --- |
{brokers}

Each point of each curve is a run of its own, against a fresh broker where it is one that is started here. **How to
read it**: what matters is the shape. Timed figures are of {seconds:g} s each, with broker and load on the same machine; a
single p99 may be another program's. CPU time is the broker's own, and steadier. Producers, commits and consumers of one
producer are a small program in C (`bench/load.c`); consumers of many partitions and everything else come from a Python
process beside it. Files are on the machine's disk, mostly in its page cache: this is not about disks.

Measure another broker beside, such as a Kafka at hand, or an older version: `make growth ARGS='--peer
kafka=127.0.0.1:9092,PID --tree ../ottla-0.1'`. Starts and stops are measured of brokers that `bench/growth` starts.
"""


def names(results: Results) -> list[str]:
    return [broker["name"] for broker in results["brokers"]]


def measured(results: Results, axis: str, name: str, figure: str) -> list[tuple[int, float]]:
    """A figure of a broker at each point of an axis, as far as it is there."""
    found = []
    for point, brokers in results["axes"].get(axis, {}).items():
        value = brokers.get(name, {}).get(figure)
        if value is not None:
            found.append((int(point), value))
    return sorted(found)


def lines(results: Results, section: Section, plot: Plot) -> list[Line]:
    """One broker has a colour for each figure; several have a colour each, and dashes for each figure."""
    brokers, drawn = names(results), []
    for place, name in enumerate(brokers):
        for index, (figure, label) in enumerate(plot.lines):
            found = measured(results, section.axis, name, figure)
            if found and len(brokers) == 1:
                drawn.append(Line(label, found, index, index))
            elif found:
                drawn.append(Line(f"{name}: {label}", found, place, index))
    return drawn


def legend(results: Results, plot: Plot) -> list[Line] | None:
    """Of several brokers: which colour each has, and which dashes each figure."""
    brokers = names(results)
    if len(brokers) == 1:
        return None
    dashes = [Line(label, (), None, index) for index, (_, label) in enumerate(plot.lines)]
    return [Line(name, (), place) for place, name in enumerate(brokers)] + (dashes if len(dashes) > 1 else [])


def plots(results: Results) -> Iterator[tuple[Section, Plot, str]]:
    """Each plot that has anything to show, drawn."""
    for section in SECTIONS:
        for plot in section.plots:
            if found := lines(results, section, plot):
                svg = chart(
                    plot.title,
                    section.x_label,
                    plot.y_label,
                    found,
                    legend=legend(results, plot),
                    log_y=plot.log_y,
                )
                yield section, plot, svg


def picture(section: Section, plot: Plot) -> str:
    return f"{PICTURES}/{section.axis}-{plot.name}.svg"


def table(results: Results, section: Section) -> list[list[str]]:
    """The head and the rows: a figure of each broker at each point."""
    points = sorted(map(int, results["axes"].get(section.axis, {})))
    brokers = names(results)
    several = len(brokers) > 1
    out = [["", *(["broker"] if several else []), *(f"{point:,}" for point in points)]]
    for row in section.rows:
        for name in brokers:
            found = dict(measured(results, section.axis, name, row.name))
            if found:
                cells = [two_digits(found[p]) if p in found else "-" for p in points]
                out.append([f"{row.label}, {row.unit}", *([name] if several else []), *cells])
    return out


def text(results: Results) -> str:
    """The tables for people, in a terminal."""
    out = []
    for section in SECTIONS:
        rows = table(results, section)
        if len(rows) > 1:
            widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
            out.append(section.title)
            for row in rows:
                cells = [
                    row[0].ljust(widths[0]),
                    *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)),
                ]
                out.append("  ".join(cells).rstrip())
            out.append("")
    out += [f"{e['axis']} {e['point']:,}, {e['broker']}: failed ({e['error']})" for e in results["errors"]]
    return "\n".join(out)


def _markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    head, *rest = rows
    label_columns = 1 + (head[1:2] == ["broker"])
    rule = ["---"] * label_columns + ["---:"] * (len(head) - label_columns)
    return [f"| {' | '.join(row)} |" for row in (head, rule, *rest)]


def render(results: Results) -> str:
    """The page."""
    brokers = "\n".join(f"| {b['name']} | {b['version']} | {b['about']} |" for b in results["brokers"])
    given = {key: results[key] for key in ("date", "command", "machine", "seconds")}
    out = [
        HEAD.format(brokers=brokers, **given).rstrip("\n"),
        "",
        *([results["note"], ""] if results["note"] else []),
    ]
    drawn = [(section, plot) for section, plot, _ in plots(results)]
    for section in SECTIONS:
        rows = table(results, section)
        if len(rows) == 1:
            continue
        out += [f"## {section.title}", "", section.about, ""]
        out += [f"![{plot.title}]({picture(section, plot)})" for of, plot in drawn if of is section]
        out += ["", *_markdown(rows), ""]
        for error in results["errors"]:
            if error["axis"] == section.axis:
                out += [f"{error['broker']}, {error['point']:,}: failed ({error['error']}).", ""]
    return "\n".join(out)


def write(results: Results, page: Path) -> None:
    """Write the page, and its plots beside it; plots that it no longer has are removed."""
    folder = page.parent / PICTURES
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {page.parent / picture(section, plot): svg for section, plot, svg in plots(results)}
    for path in set(folder.glob("*.svg")) - wanted.keys():
        path.unlink()
    for path, svg in wanted.items():
        path.write_text(svg)
    page.write_text(render(results))
