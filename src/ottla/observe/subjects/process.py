"""The process and its event loop."""

from __future__ import annotations

from collections.abc import Iterator

from ottla import __version__, implementation
from ottla.env import resources
from ottla.env.clock import thread_cpu_ms
from ottla.observe.exposition import Page
from ottla.observe.metric import counter, gauge, histogram
from ottla.observe.parts import Parts

BUILD = gauge(
    "ottla_build_info", "1, with the release and whether the hot path runs compiled.",
    "The same on all nodes, but for an upgrade that is under way.", "Finish the upgrade.",
    ("version", "implementation"), "kafka.server:type=app-info",
)  # fmt: skip
NODE = gauge(
    "ottla_node_info", "1, with the node's id, its cluster's id and its rack.", "As it was configured.", "",
    ("node_id", "cluster_id", "rack"), "kafka.server:type=KafkaServer,name=ClusterId",
)  # fmt: skip
START = gauge(
    "process_start_time_seconds", "When the process was started, in Unix time.",
    "It changes at each restart, and at no other time.", "Look for what ended it: its log, the kernel's.",
)  # fmt: skip
CPU = counter(
    "process_cpu_seconds_total", "CPU time of all threads.",
    "Below one core and a little: the event loop is one thread, beside it a few write, sync and compress.",
    "More processors help only with more nodes: `ottla serve --processes`.",
)  # fmt: skip
RESIDENT = gauge(
    "process_resident_memory_bytes", "Memory that is resident.",
    "40 MB at the start, and up to what `ottla_held_bytes` has on top, with 128 MiB of freed memory kept.",
    "If it grows with neither load nor the number of partitions, it is worth a bug report.",
)  # fmt: skip
FILES = gauge(
    "process_open_fds", "Open files and connections.",
    "Well below `process_max_fds`: some four for each segment that is in use, one for each connection.",
    "Raise `ulimit -n`, or have fewer partitions on the node.",
)  # fmt: skip
FILES_MAX = gauge(
    "process_max_fds", "How many files and connections the process may have open.", "100,000 or more.",
    "Raise `ulimit -n`: a quarter of it, up to 256, is kept from connections for the logs.",
)  # fmt: skip
LAG = histogram(
    "ottla_loop_lag_seconds",
    "How late the event loop came to what was due: what a request waits that comes at any time.",
    "99 of 100 below 20 ms.",
    "See `ottla_request_slowest_seconds` for what holds the loop, `ottla_gc_pause_seconds`, and "
    "`ottla_loop_starved_seconds_total` for a machine that has too little to give.",
)  # fmt: skip
LAG_MAX = gauge(
    "ottla_loop_lag_max_seconds", "The longest of these, since the start.", "Below 0.1.", "As above; the log "
    "has a line for each above 0.1 s, with what was running.",
)  # fmt: skip
BUSY = counter(
    "ottla_loop_cpu_seconds_total",
    "CPU time of the event loop's thread: its rate is how busy the loop is, and 1 less that how idle.",
    "A rate below 0.7.", "Beyond 0.9 latency grows fast: add nodes, or processes on this machine.",
    (), "kafka.network:type=SocketServer,name=NetworkProcessorAvgIdlePercent; "
    "kafka.server:type=KafkaRequestHandlerPool,name=RequestHandlerAvgIdlePercent",
)  # fmt: skip
STARVED = counter(
    "ottla_loop_starved_seconds_total",
    "For how long the loop's thread could have run and other programs had the processors (0 where the system "
    "does not tell).",
    "A rate below 0.05.", "Give the node a processor of its own; look for what else runs on the machine.",
)  # fmt: skip
COLLECTING = histogram(
    "ottla_gc_pause_seconds", "How long each collection of garbage took, by CPU time; the loop stands still "
    "then.",
    "All below 10 ms.", "Report longer ones, with the numbers of partitions, groups and connections.",
)  # fmt: skip
METRICS = (
    BUILD, NODE, START, CPU, RESIDENT, FILES, FILES_MAX, LAG, LAG_MAX, BUSY, STARVED, COLLECTING,
)  # fmt: skip


def collect(parts: Parts, page: Page) -> Iterator[None]:
    page.add(BUILD, 1, __version__, implementation.name())
    services = parts.services
    rack = services.config.get("broker.rack") or ""
    page.add(NODE, 1, services.node_id, services.metadata.image.cluster_id, rack)
    page.add(CPU, resources.cpu_s())
    found = resources.of_process()
    if found is not None:
        page.add(START, found.started_s)
        page.add(RESIDENT, found.resident_bytes)
        page.add(FILES, found.open_files)
    page.add(FILES_MAX, services.disk.open_files_max())
    page.add(BUSY, thread_cpu_ms() / 1000)
    lag = parts.lag
    if lag is not None:
        page.add_milliseconds(LAG, lag.late)
        page.add(LAG_MAX, lag.late.max_ms / 1000)
        page.add(STARVED, lag.delayed_ms / 1000)
        if lag.collections is not None:
            page.add_milliseconds(COLLECTING, lag.collections.pauses)
    yield
