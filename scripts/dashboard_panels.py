"""What is on the dashboard for Grafana: `make docs` makes deploy/monitoring/ottla-dashboard.json of this.

In queries ``{}`` and ``{api="Fetch"}`` mean of the nodes that are chosen at the top of the page; ``RATE`` is
the time over which Grafana has rates taken. What a panel shows is described by docs/METRICS.md's words for
the metric that its first query begins with.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Panel(NamedTuple):
    """``queries``: what each line is called, with labels as ``{{label}}``, and where it comes from. ``unit``
    as Grafana calls it. ``kind``: "timeseries", or "stat" for one number, which is green below
    ``thresholds``' first and red from its second on, or the other way round where they fall."""

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    kind: str = "timeseries"
    thresholds: tuple[float, float] | None = None
    # Lines are put on top of one another.
    stacked: bool = False


class Row(NamedTuple):
    title: str
    panels: tuple[Panel, ...]


def _stat(
    title: str, query: str, thresholds: tuple[float, float] | None = None, unit: str = "short"
) -> Panel:
    return Panel(title, unit, ((title, query),), "stat", thresholds)


def _nodes(title: str, unit: str, query: str, stacked: bool = False) -> Panel:
    """A line for each node."""
    return Panel(title, unit, (("{{instance}}", query),), stacked=stacked)


def _quantile(quantile: float, by: str, histogram: str) -> str:
    return f"histogram_quantile({quantile}, sum by ({by}, le) (rate({histogram}[RATE])))"


def _by_stage(api: str) -> Panel:
    queue, local, remote, throttle = (
        (
            f"{stage}, 99 of 100",
            _quantile(
                0.99, "stage", f'ottla_request_duration_seconds_bucket{{api="{api}", stage="{stage}"}}'
            ),
        )
        for stage in ("queue", "local", "remote", "throttle")
    )
    return Panel(f"{api}: where its time goes", "s", (local, queue, remote, throttle))


OVERVIEW: Final = Row("Overview", (
    _stat("Nodes that live", "max(ottla_brokers{})"),
    _stat("Nodes that do not", "max(ottla_fenced_brokers{})", (1, 1)),
    _stat("Controllers", "sum(ottla_active_controller{})", (2, 2)),
    _stat("Partitions", "max(ottla_partitions{})"),
    _stat("Without a leader", "max(ottla_cluster_offline_partitions{})", (1, 1)),
    _stat("Too few in sync", "sum(ottla_under_min_isr_partitions{})", (1, 1)),
    _stat("Replicas missing", "sum(ottla_under_replicated_partitions{})", (1, 10)),
    _stat("Logs that failed", "sum(ottla_failed_logs{}) + sum(ottla_unopened_replicas{})", (1, 1)),
    _stat(
        "Least space left", "min(ottla_disk_free_bytes{} / ottla_disk_bytes{})", (0.15, 0.05), "percentunit"
    ),
    _stat("Longest wait for the store", "max(ottla_store_away_seconds{})", (5, 30), "s"),
    _stat("Records in a second", "sum(rate(ottla_messages_in_total{}[RATE]))"),
    _stat("Most records behind", "max(sum by (group) (ottla_group_lag_messages{}))"),
))  # fmt: skip

TRAFFIC: Final = Row("Traffic", (
    _nodes("Records in", "cps", "rate(ottla_messages_in_total{}[RATE])", stacked=True),
    _nodes("Bytes in", "Bps", "rate(ottla_bytes_in_total{}[RATE])", stacked=True),
    _nodes("Bytes out to consumers", "Bps", "rate(ottla_bytes_out_total{}[RATE])", stacked=True),
    Panel("Topics with most bytes in", "Bps", (
        ("{{topic}}", "topk(10, sum by (topic) (rate(ottla_topic_bytes_in_total{}[RATE])))"),
    ), stacked=True),
    Panel("Topics with most bytes out", "Bps", (
        ("{{topic}}", "topk(10, sum by (topic) (rate(ottla_topic_bytes_out_total{}[RATE])))"),
    ), stacked=True),
    Panel("Topics with the largest logs", "bytes", (
        ("{{topic}}", "topk(10, sum by (topic) (ottla_topic_log_bytes{}))"),
    ), stacked=True),
    _nodes("Space left", "percentunit", "ottla_disk_free_bytes{} / ottla_disk_bytes{}"),
    Panel("Connections", "short", (("{{instance}} {{listener}}", "ottla_connections{}"),), stacked=True),
    Panel("Connections that come, and that are refused", "cps", (
        ("come", "sum(rate(ottla_connections_accepted_total{}[RATE]))"),
        ("refused: {{limit}}", "sum by (limit) (rate(ottla_connections_refused_total{}[RATE]))"),
    )),
))  # fmt: skip

REQUESTS: Final = Row("Requests and their time", (
    Panel("Requests", "reqps", (
        ("{{api}}", "sum by (api) (rate(ottla_requests_total{}[RATE]))"),
    ), stacked=True),
    Panel("Errors that were answered", "cps", (
        ("{{api}} {{error}}", "sum by (api, error) (rate(ottla_request_errors_total{}[RATE]))"),
    )),
    Panel("Slowest handling of the last minutes", "s", (
        ("{{api}}", "max by (api) (ottla_request_slowest_seconds{})"),
    )),
    _by_stage("Produce"),
    _by_stage("Fetch"),
    Panel("On the event loop, by API, 99 of 100", "s", (
        ("{{api}}", _quantile(0.99, "api", 'ottla_request_duration_seconds_bucket{stage="local"}')),
    )),
    Panel("Waiting for others' requests, by API, 99 of 100", "s", (
        ("{{api}}", _quantile(0.99, "api", 'ottla_request_duration_seconds_bucket{stage="queue"}')),
    )),
    Panel("Throttled", "percentunit", (
        ("{{quota}}", "sum by (quota) (rate(ottla_throttle_seconds_total{}[RATE]))"),
    )),
    Panel("Logins, and what is denied", "cps", (
        ("logins that fail", "sum(rate(ottla_login_failures_total{}[RATE]))"),
        ("handshakes that fail", "sum(rate(ottla_tls_failures_total{}[RATE]))"),
        ("logins", "sum(rate(ottla_logins_total{}[RATE]))"),
        ("denied", "sum(rate(ottla_denials_total{}[RATE]))"),
    )),
))  # fmt: skip

REPLICATION: Final = Row("Replication", (
    _nodes("Partitions that lack a replica", "short", "ottla_under_replicated_partitions{}", stacked=True),
    Panel("For how long followers are behind", "s", (
        ("{{follower}} behind {{instance}}", "ottla_follower_lag_seconds{}"),
    )),
    Panel("Records that followers are behind", "short", (
        ("{{follower}} behind {{instance}}", "ottla_follower_lag_messages{}"),
    )),
    Panel("Followers that leave the in-sync replicas, and come back", "cps", (
        ("leave {{instance}}", "rate(ottla_isr_shrinks_total{}[RATE])"),
        ("come back to {{instance}}", "rate(ottla_isr_expands_total{}[RATE])"),
    )),
    _nodes("Bytes to followers", "Bps", "rate(ottla_replication_bytes_out_total{}[RATE])", stacked=True),
    _nodes("Leaders", "short", "ottla_leaders{}", stacked=True),
    _nodes("Replicas", "short", "ottla_replicas{}", stacked=True),
    Panel("What waits", "short", (
        ("batches, for followers", "sum(ottla_waiting_produces{})"),
        ("deletions, for followers", "sum(ottla_waiting_deletions{})"),
        ("fetches, for records", "sum(ottla_waiting_fetches{})"),
    )),
    Panel("The metadata store's time, 99 of 100", "s", (
        ("{{operation}}", _quantile(0.99, "operation", "ottla_store_request_seconds_bucket{}")),
    )),
))  # fmt: skip

GROUPS: Final = Row("Groups and transactions", (
    Panel("Groups that are most records behind", "short", (
        ("{{group}} {{topic}}", "topk(10, sum by (group, topic) (ottla_group_lag_messages{}))"),
    )),
    Panel("Groups by their states", "short", (
        ("{{state}}", "sum by (state) (ottla_groups{})"),
    ), stacked=True),
    Panel("Groups that rebalance most", "short", (
        ("{{group}}", "topk(10, sum by (group) (delta(ottla_group_generation{}[15m])))"),
    )),
    Panel("Members", "short", (("{{group}}", "topk(10, sum by (group) (ottla_group_members{}))"),)),
    Panel("Transactions by their states", "short", (
        ("{{state}}", "sum by (state) (ottla_transactional_ids{})"),
    ), stacked=True),
    Panel("Coordinators that are still reading", "short", (
        ("{{coordinator}} of {{instance}}", "ottla_coordinator_loading_partitions{}"),
    )),
    _nodes("Transactions whose end is not everywhere", "short", "ottla_transactions_awaiting_markers{}"),
    _nodes("The oldest open transaction", "s", "ottla_transaction_oldest_seconds{}"),
))  # fmt: skip

PROCESSES: Final = Row("Memory and event loop", (
    Panel("How busy the event loop is", "percentunit", (
        ("{{instance}}", "rate(ottla_loop_cpu_seconds_total{}[RATE])"),
        ("{{instance}} waits for a processor", "rate(ottla_loop_starved_seconds_total{}[RATE])"),
    )),
    Panel("How late the event loop comes, 99 of 100", "s", (
        ("{{instance}}", _quantile(0.99, "instance", "ottla_loop_lag_seconds_bucket{}")),
    )),
    Panel("Collections of garbage, the longest 1 of 100", "s", (
        ("{{instance}}", _quantile(0.99, "instance", "ottla_gc_pause_seconds_bucket{}")),
    )),
    _nodes("Processors", "short", "rate(process_cpu_seconds_total{}[RATE])", stacked=True),
    _nodes("Memory", "bytes", "process_resident_memory_bytes{}", stacked=True),
    Panel("Bytes that are held", "bytes", (("{{kind}} {{instance}}", "ottla_held_bytes{}"),)),
    _nodes("Clients that wait for memory", "short", "ottla_clients_waiting_for_memory{}"),
    _nodes("Files and connections that are open", "percentunit", "process_open_fds{} / process_max_fds{}"),
    _nodes("Fetch sessions", "short", "ottla_fetch_sessions{}", stacked=True),
))  # fmt: skip

# As Java's client calls them; librdkafka sends some of these (KIP-714).
CLIENTS: Final = Row("What clients tell of themselves", (
    _nodes("Clients that tell", "short", "ottla_telemetry_clients{}", stacked=True),
    Panel("Producers: how long a broker takes to answer", "ms", (
        ("{{client_id}}", "max by (client_id) (kafka_client_producer_node_request_latency_avg{})"),
    )),
    Panel("Producers: how long records wait to be sent", "ms", (
        ("{{client_id}}", "max by (client_id) (kafka_client_producer_record_queue_time_avg{})"),
    )),
    Panel("Consumers: how long a broker takes to answer", "ms", (
        ("{{client_id}}", "max by (client_id) (kafka_client_consumer_node_request_latency_avg{})"),
    )),
    Panel("Consumers: how much of their time they wait for records", "percentunit", (
        ("{{client_id}}", "avg by (client_id) (kafka_client_consumer_poll_idle_ratio_avg{})"),
    )),
    Panel("Consumers: how long commits take", "ms", (
        ("{{client_id}}", "max by (client_id) (kafka_client_consumer_coordinator_commit_latency_avg{})"),
    )),
    Panel("Consumers: how many records they are behind", "short", (
        ("{{client_id}}", "max by (client_id) (kafka_client_consumer_fetch_manager_records_lag_max{})"),
    )),
))  # fmt: skip

ROWS: Final = (OVERVIEW, TRAFFIC, REQUESTS, REPLICATION, GROUPS, PROCESSES, CLIENTS)
