"""Series by which each alert has to fire, and others by which it must not.

A value a minute, as promtool writes them: ``0x5`` is 0 and five times more of it, ``0+6x5`` grows by 6.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

Series = Mapping[str, str]


class Case(NamedTuple):
    """``fires``: by which it fires after ``minutes``. ``quiet``: each of these does not make it fire."""

    alert: str
    minutes: int
    fires: Series
    quiet: tuple[Series, ...]


def _of(name: str, labels: str = "") -> str:
    return f'{name}{{job="ottla", instance="a", cluster="c"{labels and ", "}{labels}}}'


def _gauge(name: str, fires: str, *quiet: str, labels: str = "") -> tuple[Series, tuple[Series, ...]]:
    series = _of(name, labels)
    return {series: fires}, tuple({series: values} for values in quiet)


def _ranges(name: str, labels: str, bounds: Mapping[str, int], values: str = "0+{}x60") -> Series:
    """A histogram of which each bucket grows by so much a minute; or as ``values`` say."""
    return {
        _of(f"{name}_bucket", f'{labels}{labels and ", "}le="{bound}"'): values.format(growth)
        for bound, growth in bounds.items()
    }


def _disk(free: str) -> Series:
    return {_of("ottla_disk_free_bytes"): free, _of("ottla_disk_bytes"): "1000x480"}


def _flapping(shrinks: str, expands: str) -> Series:
    return {_of("ottla_isr_shrinks_total"): shrinks, _of("ottla_isr_expands_total"): expands}


def _controllers(one: str, other: str) -> Series:
    """Of two nodes."""
    second = _of("ottla_active_controller").replace('"a"', '"b"')
    return {_of("ottla_active_controller"): one, second: other}


def _errors(error: str, values: str) -> Series:
    return {_of("ottla_request_errors_total", f'api="Produce", error="{error}"'): values}


def _refused(limit: str, values: str) -> Series:
    return {_of("ottla_connections_refused_total", f'listener="L", limit="{limit}"'): values}


def _steps(minutes: int, count: int) -> str:
    """A counter that grows every so many minutes, so many times."""
    return " ".join(f"{number}x{minutes - 1}" for number in range(count)) + f" {count}x60"


_LAG = 'group="g", topic="t"'
_LISTENER = 'listener="L"'
_TXN = 'operation="txn"'
# Something that happens once, and no more.
_ONCE = "0x5 {}x60"

# Beside series that have nothing in them, quiet ones are those just below the limit, and those that are
# beyond it for less than the rule's time.
CASES = (
    # A group that moves to another coordinator goes on.
    Case(
        "OttlaGroupLagGrows", 30,
        {
            _of("ottla_group_lag_messages", _LAG): "5000+400x15 stale",
            _of("ottla_group_lag_messages", _LAG).replace('"a"', '"b"'): "_x15 11400+400x30",
        },
        (
            {_of("ottla_group_lag_messages", _LAG): "50000x60"},
            {_of("ottla_group_lag_messages", _LAG): "90000-1000x60"},
            {_of("ottla_group_lag_messages", _LAG): "0+160x60"},
            {_of("ottla_group_lag_messages", _LAG): "12000x10 12500+500x6 15000-2000x7 0x60"},
        ),
    ),
    Case(
        "OttlaCoordinatorLoads", 10,
        *_gauge(
            "ottla_coordinator_loading_partitions", "0x2 1x20", "0x60", "0x2 3x3 0x60",
            labels='coordinator="groups"',
        ),
    ),
    Case(
        "OttlaPartitionsOffline", 5,
        *_gauge("ottla_cluster_offline_partitions", "0x2 1x5", "0x60", "0x2 3 0x60"),
    ),
    Case("OttlaUnderMinIsr", 5, *_gauge("ottla_under_min_isr_partitions", "0x1 1x5", "0x60", "0x3 2 0x3")),
    Case(
        "OttlaUnderReplicated", 20,
        *_gauge("ottla_under_replicated_partitions", "0x5 1x60", "0x60", "0x8 7x8 0x30"),
    ),
    Case(
        "OttlaIsrFlaps", 40,
        _flapping(_steps(5, 12), _steps(5, 12)),
        (
            # A node that stops, and comes back.
            _flapping("0x10 500x60", "0x20 500x60"),
            _flapping(_steps(5, 12), "0x60"),
            _flapping("0x60", _steps(5, 12)),
            _flapping(_steps(10, 6), _steps(10, 6)),
            _flapping(_steps(7, 5), _steps(7, 5)),
        ),
    ),
    Case("OttlaReplicasNotOpened", 5, *_gauge("ottla_unopened_replicas", "1x10", "0x60")),
    Case("OttlaLogsFailed", 3, *_gauge("ottla_failed_logs", "0x2 1x10", "0x60")),
    Case(
        "OttlaCompactionFails", 50,
        *_gauge("ottla_compaction_failures_total", _steps(10, 4), "0x60", _steps(20, 2)),
    ),
    Case(
        "OttlaDiskNearlyFull", 5,
        _disk("100x2 49x10"),
        (_disk("100x60"), _disk("60x60"), _disk("100x2 40 100x60")),
    ),
    Case("OttlaDiskFills", 40, _disk("149x60"), (_disk("300x60"), _disk("149x20 300x60"))),
    # A quarter of the disk in six hours, with less than half left.
    Case(
        "OttlaDiskFills", 450,
        _disk("650-0.7x480"),
        (_disk("450-0.01x480"), _disk("980-0.7x480"), _disk("_x350 450-0.7x130")),
    ),
    Case("OttlaNodeDown", 5, *_gauge("up", "1x2 0x10", "1x60", "1x2 0 1x60")),
    Case("OttlaNodeFenced", 15, *_gauge("ottla_fenced_brokers", "0x5 1x60", "0x60", "0x5 1x3 0x60")),
    Case("OttlaNodeRestarts", 30, *_gauge("process_start_time_seconds", _steps(6, 3), "1x60", _steps(6, 2))),
    Case(
        "OttlaNoController", 10,
        _controllers("1x5 0x20", "0x30"),
        (
            _controllers("1x30", "0x30"),
            _controllers("1x5 0x25", "0x5 1x25"),
            _controllers("1x5 0 1x25", "0x30"),
        ),
    ),
    Case("OttlaNoController", 10, _controllers("1x30", "1x30"), (_controllers("0x30", "1x30"),)),
    Case(
        "OttlaStoreAway", 5,
        *_gauge("ottla_store_away_seconds", "0x2 0+60x10", "0x60", "0x2 25x10 0x60", "0x2 40 0x60"),
    ),
    Case(
        "OttlaStoreSlow", 20,
        _ranges("ottla_store_request_seconds", _TXN, {"0.1": 1, "1": 60, "+Inf": 60}),
        (
            _ranges("ottla_store_request_seconds", _TXN, {"0.1": 1, "0.3": 60, "+Inf": 60}),
            _ranges("ottla_store_request_seconds", 'operation="lease"', {"0.1": 1, "1": 60, "+Inf": 60}),
            _ranges("ottla_store_request_seconds", _TXN, {"0.1": 0, "1": 0, "+Inf": 0}),
            _ranges("ottla_store_request_seconds", _TXN, {"0.1": 1, "1": 60, "+Inf": 60}, _ONCE),
        ),
    ),
    Case(
        "OttlaStoreFails", 15,
        *_gauge(
            "ottla_store_request_failures_total", "0+12x60", "0x60", "0+3x60", _ONCE.format(60), labels=_TXN
        ),
    ),
    Case("OttlaScrapeIncomplete", 10, *_gauge("ottla_scrape_failures_total", "0x5 1x60", "0x60")),
    Case(
        "OttlaLoopLate", 20,
        _ranges("ottla_loop_lag_seconds", "", {"0.02": 950, "0.2": 1000, "+Inf": 1000}),
        (
            _ranges("ottla_loop_lag_seconds", "", {"0.02": 998, "0.2": 1000, "+Inf": 1000}),
            _ranges("ottla_loop_lag_seconds", "", {"0.02": 950, "0.05": 1000, "+Inf": 1000}),
            _ranges("ottla_loop_lag_seconds", "", {"0.02": 950, "0.2": 1000, "+Inf": 1000}, _ONCE),
        ),
    ),
    Case(
        "OttlaLoopBusy", 25,
        *_gauge("ottla_loop_cpu_seconds_total", "0+58x60", "0+40x60", "0x5 0+58x9 522x60"),
    ),
    Case(
        "OttlaLoopStarved", 25,
        *_gauge("ottla_loop_starved_seconds_total", "0+20x60", "0+6x60", "0x5 0+20x9 180x60"),
    ),
    Case("OttlaMemoryFull", 10, *_gauge("ottla_clients_waiting_for_memory", "1x60", "0x60", "0x3 3 0x60")),
    Case(
        "OttlaFilesNearlyUsedUp", 10,
        {_of("process_open_fds"): "90x60", _of("process_max_fds"): "100x60"},
        (
            {_of("process_open_fds"): "80x60", _of("process_max_fds"): "100x60"},
            {_of("process_open_fds"): "90x3 50x60", _of("process_max_fds"): "100x60"},
        ),
    ),
    Case(
        "OttlaRequestErrors", 15,
        _errors("KAFKA_STORAGE_ERROR", "0+12x60"),
        (
            _errors("NOT_LEADER_OR_FOLLOWER", "0+60x60"),
            _errors("KAFKA_STORAGE_ERROR", "0+3x60"),
            _errors("KAFKA_STORAGE_ERROR", _ONCE.format(60)),
        ),
    ),
    Case(
        "OttlaTransactionHangs", 30,
        *_gauge("ottla_transaction_oldest_seconds", "0+60x60", "0x60", "900x60", "0x3 1300 0x60"),
    ),
    Case(
        "OttlaConnectionsRefused", 15,
        _refused("connections", "0+0.2x60"),
        (_refused("connections", "0x3 40x60"), _refused("stopping", "0+5x60")),
    ),
    Case(
        "OttlaLoginsFail", 15,
        *_gauge(
            "ottla_login_failures_total", "0+24x60", "0x60", "0+6x60", _ONCE.format(120), labels=_LISTENER
        ),
    ),
    # Time begins at 0 here.
    Case(
        "OttlaCertificateToRenew", 15,
        *_gauge("ottla_certificate_end_timestamp_seconds", "1200000x60", "1300000x60", labels=_LISTENER),
    ),
    Case(
        "OttlaCertificateEndsSoon", 5,
        *_gauge("ottla_certificate_end_timestamp_seconds", "170000x60", "180000x60", labels=_LISTENER),
    ),
    Case(
        "OttlaHandshakesFail", 15,
        *_gauge("ottla_tls_failures_total", "0+24x60", "0x60", "0+6x60", _ONCE.format(120)),
    ),
)  # fmt: skip
