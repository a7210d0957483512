"""What is held in memory for clients."""

from __future__ import annotations

from collections.abc import Iterator

from ottla.broker.memory import UNSENT_BYTES_MAX
from ottla.observe.exposition import Page
from ottla.observe.metric import counter, gauge
from ottla.observe.parts import Parts

HELD = gauge(
    "ottla_held_bytes",
    "Bytes that are held: `requests`, from their first bytes until they are answered; `responses`, from when "
    "they are "
    "read until they are sent; `members`, what members of groups have said of themselves.",
    "Well below `ottla_held_bytes_max`.",
    "Of requests: followers or the disk do not keep up with producers. Of responses: consumers do not take "
    "what they "
    "ask for.",
    ("kind",), "kafka.network:type=SocketServer,name=MemoryPoolUsed",
)  # fmt: skip
HELD_MAX = gauge(
    "ottla_held_bytes_max", "How many may be held, at about which clients are made to wait.",
    "As it is configured: queued.max.request.bytes.", "",
    ("kind",), "kafka.network:type=SocketServer,name=MemoryPoolAvailable",
)  # fmt: skip
WAITING = gauge(
    "ottla_clients_waiting_for_memory", "Clients that are not listened to, since requests fill the memory.",
    "0.",
    "See `ottla_held_bytes`; raise queued.max.request.bytes where the machine has more.",
    (), "kafka.network:type=SocketServer,name=MemoryPoolDepletedTimeTotal",
)  # fmt: skip
SESSIONS = gauge(
    "ottla_fetch_sessions", "Fetch sessions that are kept.", "One for each consumer and each follower.",
    "Where max.incremental.fetch.session.cache.slots is reached, consumers name all their partitions each "
    "time.",
    (), "kafka.server:type=FetchSessionCache,name=NumIncrementalFetchSessions",
)  # fmt: skip
SESSION_PARTITIONS = gauge(
    "ottla_fetch_session_partitions", "Partitions in all of them.", "Below 400,000, which is the limit.",
    "", (),
    "kafka.server:type=FetchSessionCache,name=NumIncrementalFetchPartitionsCached",
)  # fmt: skip
EVICTED = counter(
    "ottla_fetch_sessions_evicted_total", "Sessions that gave way to others.", "It stands still.",
    "Raise max.incremental.fetch.session.cache.slots.", (),
    "kafka.server:type=FetchSessionCache,name=IncrementalFetchSessionEvictionsPerSec",
)  # fmt: skip

METRICS = (HELD, HELD_MAX, WAITING, SESSIONS, SESSION_PARTITIONS, EVICTED)


def collect(parts: Parts, page: Page) -> Iterator[None]:
    memory, sessions = parts.services.memory, parts.services.fetch_sessions
    page.add(HELD, memory.request_bytes, "requests")
    page.add(HELD, memory.unsent_bytes, "responses")
    shards = parts.services.groups.host.shards.values()
    # One for all of them.
    members = next((shard.machine.tables.member_bytes.count for shard in shards), 0)
    page.add(HELD, members, "members")
    page.add(HELD_MAX, memory.request_bytes_max, "requests")
    page.add(HELD_MAX, UNSENT_BYTES_MAX, "responses")
    page.add(WAITING, memory.waiting_count)
    page.add(SESSIONS, len(sessions))
    page.add(SESSION_PARTITIONS, sessions.partitions)
    page.add(EVICTED, sessions.evicted)
    yield
