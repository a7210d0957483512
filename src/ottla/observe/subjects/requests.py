"""Requests, by API."""

from __future__ import annotations

from collections.abc import Iterator

from ottla.errors import ErrorCode
from ottla.observe.exposition import Page
from ottla.observe.metric import counter, gauge, histogram
from ottla.observe.parts import Parts
from ottla.observe.requests import BOUNDS_NS, ApiCounts, StageTimes
from ottla.wire.apis import APIS

_METRICS = "kafka.network:type=RequestMetrics,name="

REQUESTS = counter(
    "ottla_requests_total", "Requests that were handled, by Kafka's names of their APIs.",
    "As much as clients ask.", "A Metadata or a FindCoordinator for each other request is a client that does "
    "not "
    "keep what it was told.",
    ("api",), _METRICS + "RequestsPerSec",
)  # fmt: skip
ERRORS = counter(
    "ottla_request_errors_total",
    "Errors that were answered, by Kafka's names; each partition or group counts, of an answer up to 1,000.",
    "Few. NOT_LEADER_OR_FOLLOWER when leaders move, REBALANCE_IN_PROGRESS and MEMBER_ID_REQUIRED when "
    "members of groups "
    "come and go, NOT_COORDINATOR when nodes do, are how clients learn of it.",
    "Look the error up, and ask the client's log.", ("api", "error"), _METRICS + "ErrorsPerSec",
)  # fmt: skip
CLOSED = counter(
    "ottla_request_closings_total",
    "Requests that ended their connection: they were malformed, of no version that is served here, had more "
    "elements "
    "than they may have, or were a Produce with acks=0 that failed.",
    "It stands still.", "The log has a line for each.", ("api",),
)  # fmt: skip
TOO_LARGE = counter(
    "ottla_request_element_refusals_total",
    "Of these, those with more elements (topics, partitions, groups, and the like) than their API may have.",
    "It stands still.", "The client asks for very much at once: have it ask in parts.", ("api",),
)  # fmt: skip
REQUEST_BYTES = counter(
    "ottla_request_bytes_total", "Bytes of requests.", "As much as clients send.", "", ("api",),
    _METRICS + "RequestBytes",
)  # fmt: skip
RESPONSE_BYTES = counter(
    "ottla_response_bytes_total", "Bytes of answers.", "As much as clients ask for.", "", ("api",),
    "kafka.server:type=socket-server-metrics,name=outgoing-byte-total",
)  # fmt: skip
TOOK = histogram(
    "ottla_request_duration_seconds",
    "How long each stage took: `queue`, until requests before it, of its client or of others, were handled; "
    "`local`, "
    "its handling on the event loop; `remote`, until its answer was sent, where that had to wait for "
    "followers, the "
    "disk, more records, or answers before it; `throttle`, for how long its client was not listened to "
    "afterwards.",
    "`local`: 99 of 100 below 1 ms. `queue`: as `local`, where clients have many requests in flight more. "
    "`remote`: of "
    "Produce the followers' round trip, of Fetch up to fetch.max.wait.ms.",
    "`queue` grows when the loop is busy (`ottla_loop_cpu_seconds_total`); `remote` of Produce when "
    "followers or the "
    "disk are slow.",
    ("api", "stage"),
    _METRICS + "RequestQueueTimeMs, LocalTimeMs, RemoteTimeMs, ThrottleTimeMs, ResponseQueueTimeMs, "
    "TotalTimeMs",
)  # fmt: skip
SLOWEST = gauge(
    "ottla_request_slowest_seconds",
    "The slowest handling on the event loop of this minute and the last: all else waited meanwhile.",
    "Below 0.02.", "Report it, with what the client asked for; `ottla_loop_starved_seconds_total` tells "
    "whether the "
    "machine had no processor for it.",
    ("api",),
)  # fmt: skip

METRICS = (REQUESTS, ERRORS, CLOSED, TOO_LARGE, REQUEST_BYTES, RESPONSE_BYTES, TOOK, SLOWEST)

BOUNDS = tuple(bound / 1e9 for bound in BOUNDS_NS)
OTHER = "other"


def collect(parts: Parts, page: Page) -> Iterator[None]:
    for key, counts in sorted(parts.requests.counts.items()):
        api = APIS[key].name if key in APIS else OTHER
        page.add(REQUESTS, counts.requests, api)
        page.add(CLOSED, counts.closed, api)
        page.add(TOO_LARGE, counts.too_large, api)
        page.add(REQUEST_BYTES, counts.request_bytes, api)
        page.add(RESPONSE_BYTES, counts.response_bytes, api)
        page.add(SLOWEST, max(counts.slowest_ns, counts.slowest_before_ns) / 1e9, api)
        for code, count in counts.errors.items():
            page.add(ERRORS, count, api, _name(code))
        for name, stage, passed in _stages(counts):
            ranges = list(stage.counts)
            # What did not occur took no time.
            ranges[0] += passed - sum(ranges)
            page.add_ranges(TOOK, BOUNDS, ranges, stage.sum_ns / 1e9, api, name)
        yield


def _stages(counts: ApiCounts) -> Iterator[tuple[str, StageTimes, int]]:
    """Each stage, and how many requests have passed it: never fewer than before."""
    answered = counts.requests - counts.pended + sum(counts.remote.counts)
    yield "queue", counts.queue, counts.requests
    yield "local", counts.local, counts.requests
    yield "remote", counts.remote, answered
    yield "throttle", counts.throttle, answered


def _name(code: int) -> str:
    try:
        return ErrorCode(code).name.upper()
    except ValueError:
        return str(code)
