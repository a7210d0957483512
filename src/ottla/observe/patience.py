"""How long a request has asked to be kept waiting, and how long it was kept waiting without that (pure).

Fetch waits for records, up to its ``max_wait_ms``; a Produce with acks=all for followers, up to its
``timeout_ms``; DeleteRecords for followers, JoinGroup and SyncGroup for other members. What comes behind a
request that waits so, on the same connection, waits as its client has asked it to, too; and so does whoever
is over a quota.
"""

from __future__ import annotations

import struct

from ottla.observe.requests import Seen
from ottla.types import Buffer
from ottla.wire.apis import FETCH, PRODUCE
from ottla.wire.primitives import read_uvarint

# They wait for other members, or for followers.
JOIN_GROUP, SYNC_GROUP, DELETE_RECORDS = 11, 14, 21
# Where it says nothing of how long, or says it behind what may be long.
UNBOUNDED_NS = 1 << 62
NS_PER_MS = 1_000_000
# Less is not asked after.
SHORT_NS = NS_PER_MS
# Two times of waiting are one, where there is so little between them.
GAP_NS = 5 * NS_PER_MS

# Since when a Fetch does not begin with the id of a replica (KIP-903), and since when strings are compact.
FETCH_WITHOUT_REPLICA, PRODUCE_FLEXIBLE, PRODUCE_TRANSACTIONAL = 15, 9, 3
ACKS_ALL = -1

_INT = struct.Struct(">i")
_SHORT = struct.Struct(">h")
_ACKS = struct.Struct(">hi")


def asked_ns(api_key: int, version: int, frame: Buffer, offset: int) -> int:
    """For how long the request whose body is at ``offset`` (0: that is not known) has asked to be kept
    waiting, at most."""
    if api_key in (JOIN_GROUP, SYNC_GROUP, DELETE_RECORDS):
        return UNBOUNDED_NS
    if api_key not in (FETCH, PRODUCE):
        return 0
    if not offset:
        return UNBOUNDED_NS
    try:
        if api_key == FETCH:
            at = offset if version >= FETCH_WITHOUT_REPLICA else offset + _INT.size
            return max(int(_INT.unpack_from(frame, at)[0]), 0) * NS_PER_MS
        acks, timeout_ms = _ACKS.unpack_from(frame, _behind_transactional_id(version, frame, offset))
    except (IndexError, ValueError, struct.error):
        # It does not stand in what there is of the request: its client's id is very long.
        return UNBOUNDED_NS
    return max(int(timeout_ms), 0) * NS_PER_MS if acks == ACKS_ALL else 0


def _behind_transactional_id(version: int, frame: Buffer, offset: int) -> int:
    if version < PRODUCE_TRANSACTIONAL:
        return offset
    if version < PRODUCE_FLEXIBLE:
        return offset + _SHORT.size + max(int(_SHORT.unpack_from(frame, offset)[0]), 0)
    size = frame[offset]
    offset += 1
    if size >= 0x80:
        size, offset = read_uvarint(frame, offset, size)
    return offset + max(size - 1, 0)


def excuse(seen: Seen, remote_asked_ns: int) -> None:
    """Note when a client waited as it had asked to, or for a quota: so did what it has sent meanwhile."""
    handled_ns = seen.began_ns + seen.local_ns
    # A Produce keeps nobody waiting that comes behind it.
    waited_ns = 0 if seen.api_key == PRODUCE else min(seen.remote_ns, remote_asked_ns)
    throttle_ns = seen.throttle_ms * NS_PER_MS
    from_ns, to_ns = handled_ns, handled_ns + waited_ns
    if throttle_ns:
        to_ns = handled_ns + seen.remote_ns + throttle_ns
        if waited_ns < seen.remote_ns:
            from_ns = handled_ns + seen.remote_ns
    if to_ns - from_ns < SHORT_NS:
        return
    client = seen.client
    if from_ns - client.excused_to_ns > GAP_NS:
        client.excused_from_ns = from_ns
    client.excused_to_ns = max(to_ns, client.excused_to_ns)


def unasked_ns(seen: Seen, remote_asked_ns: int) -> int:
    """For how long it was kept waiting without having asked for it."""
    client = seen.client
    came_ns = seen.began_ns - seen.queue_ns
    excused_ns = min(seen.began_ns, client.excused_to_ns) - max(came_ns, client.excused_from_ns)
    queue_ns = seen.queue_ns - max(excused_ns, 0)
    return queue_ns + seen.local_ns + max(seen.remote_ns - remote_asked_ns, 0)
