"""Who logs in, who is refused, who is made to wait."""

from __future__ import annotations

from collections.abc import Iterator

from ottla.observe.exposition import Page
from ottla.observe.metric import counter, gauge
from ottla.observe.parts import Parts

_SERVER = "kafka.server:type=socket-server-metrics,name="

LOGINS = counter(
    "ottla_logins_total", "Logins by SASL that succeeded, those again of a connection that goes on among "
    "them.",
    "One for each connection, and one each time that connections.max.reauth.ms is over.", "",
    ("listener",), _SERVER + "successful-authentication-total",
)  # fmt: skip
FAILURES = counter(
    "ottla_login_failures_total", "Logins by SASL that failed.", "It stands still.",
    "The log says who failed, from where, and why. Many from one address: somebody guesses.",
    ("listener",), _SERVER + "failed-authentication-total",
)  # fmt: skip
HANDSHAKES = counter(
    "ottla_tls_failures_total", "TLS handshakes of clients that failed, or took too long.",
    "It stands still.",
    "The log says why: clients that do not trust the node's certificate, or speak no TLS, or have none that "
    "is trusted "
    "here.",
    (), _SERVER + "failed-authentication-total",
)  # fmt: skip
CERTIFICATE = gauge(
    "ottla_certificate_end_timestamp_seconds",
    "When the first of a listener's own certificates ends, in Unix time; of listeners with TLS.",
    "Weeks ahead.", "Renew it: new files are taken up within seconds, without a restart.",
    ("listener",),
)  # fmt: skip
DENIALS = counter(
    "ottla_denials_total", "What clients asked for and are not allowed: each topic, group or other thing "
    "counts.",
    "It stands still.", "The audit log (`ottla.authorizer`) says who was denied what.", (),
    "kafka.server:type=authorizer-metrics,name=authorization-denied-rate-per-minute",
)  # fmt: skip
THROTTLED = counter(
    "ottla_throttles_total",
    "How often clients were made to wait for being over a quota: `produce`, `fetch`, `request`, `mutation`.",
    "It stands still where clients keep to their quotas.", "`ottla quota list` says who has which.",
    ("quota",), "kafka.server:type=Produce, Fetch, Request or ControllerMutation, name=throttle-time",
)  # fmt: skip
THROTTLED_S = counter(
    "ottla_throttle_seconds_total", "For how long, in all.", "It stands still.", "As above.",
    ("quota",), "kafka.server:type=Produce, Fetch, Request or ControllerMutation, name=throttle-time",
)  # fmt: skip

METRICS = (LOGINS, FAILURES, HANDSHAKES, CERTIFICATE, DENIALS, THROTTLED, THROTTLED_S)


def collect(parts: Parts, page: Page) -> Iterator[None]:
    logins: dict[str, tuple[int, int]] = {}
    for server in parts.listeners.servers:
        before, counts = logins.get(server.listener, (0, 0)), server.counts
        logins[server.listener] = before[0] + counts.logins, before[1] + counts.login_failures
    for listener, (succeeded, failed) in logins.items():
        page.add(LOGINS, succeeded, listener)
        page.add(FAILURES, failed, listener)
    page.add(HANDSHAKES, parts.entrances.failed_handshakes)
    for listener, end_s in parts.entrances.certificate_ends_s().items():
        page.add(CERTIFICATE, end_s, listener)
    page.add(DENIALS, parts.services.denials)
    quotas = parts.services.quotas
    for kind in ("produce", "fetch", "request", "mutation"):
        page.add(THROTTLED, quotas.throttled[kind], kind)
        page.add(THROTTLED_S, quotas.throttled_ms[kind] / 1000, kind)
    yield
