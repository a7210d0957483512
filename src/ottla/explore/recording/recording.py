"""The record of one run: who was down or cut off and when, what programs asked and were answered, records.

Runs are not recorded. A run that fails is repeated with its seed and recorded then, since a seed repeats its
run: to record is to look, and changes nothing. Times are virtual seconds since the run began.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

# The lanes of what belongs to no machine: the network, and the run as a whole.
NETWORK, WORLD = "network", "world"
# The result of what no answer was wanted to.
NOT_WANTED = "acks=0"
# Of each list so many are kept, the first of them.
ENTRIES_MAX = 50_000
# Of a key, a value or a text so much is kept.
TEXT_MAX = 200


class Kind(StrEnum):
    """What a span of time on a lane is."""

    # A process of a node or a program: from its start to its end.
    RUNS = "runs"
    # From being killed or ended to its next start.
    DOWN = "down"
    PAUSED = "paused"
    # A fault that lasts, other than these.
    FAULT = "fault"


@dataclass(slots=True, kw_only=True)
class Span:
    """Something that lasts on the lane of a node, of a program, of the store or of the ``network``.

    ``end_s`` is None while it lasts, and stays so if it did at the end of the run.
    """

    lane: str
    kind: Kind
    begin_s: float
    end_s: float | None = None
    # For people: "is killed", "n1 is cut off from n2, n3", "leads orders-0".
    text: str = ""


@dataclass(slots=True, kw_only=True)
class Call:
    """A request of a program to a node; ``answered_s`` None: it never heard of it.

    ``lost_s`` is when its connection ended before; both are None while the program waits, and stay so if it
    did at the end of the run, and where no answer was wanted.
    """

    program: str
    node: str
    # The API's name, as Kafka has it: "Produce", "OffsetCommit".
    api: str
    sent_s: float
    answered_s: float | None = None
    lost_s: float | None = None
    # What it was about, for people: "orders-0 (3 records)", "group shipping, generation 4".
    about: str = ""
    # What the node answered, also where the program never heard of it: "ok", or the names of the errors,
    # "NOT_LEADER_OR_FOLLOWER". Empty: nothing; ``acks=0``: nothing was wanted.
    result: str = ""


@dataclass(slots=True, kw_only=True)
class Written:
    """A record that a program sent, once for each request that it was in.

    ``offset`` None: the node answered with an error or not at all. ``acknowledged_s`` None: the program never
    heard that it lies at ``offset``.
    """

    program: str
    topic: str
    partition: int
    offset: int | None
    key: bytes | None
    value: bytes | None
    sent_s: float
    acknowledged_s: float | None = None
    # "ok", the error's name, or nothing.
    result: str = ""
    # The transactional id, and how the transaction ended: "committed", "aborted", or not yet.
    transaction: str = ""
    outcome: str = ""


@dataclass(slots=True, kw_only=True)
class Read:
    """Records ``first_offset`` to ``last_offset`` of a partition arrived at a program."""

    program: str
    topic: str
    partition: int
    first_offset: int
    last_offset: int
    at_s: float


@dataclass(slots=True, kw_only=True)
class Committed:
    """A group's offset: ``offset`` is the next one to be read. It was sent at ``at_s``.

    ``result``: "ok", the error's name, or nothing where the node did not answer.
    """

    program: str
    group: str
    topic: str
    partition: int
    offset: int
    at_s: float
    result: str = ""
    # As in ``Written``.
    transaction: str = ""
    outcome: str = ""


@dataclass(slots=True, kw_only=True)
class Remark:
    """Something that has no duration: a leader was elected, the world heals, a check is broken."""

    lane: str
    at_s: float
    text: str


@dataclass(slots=True)
class Recording:
    """All of it. ``lanes``: so many nodes as ``nodes`` says, then programs in the order of their first start.

    Spans and remarks may be on others: the store's, ``network``, and ``world``, which is the run as a whole.
    """

    lanes: list[str] = field(default_factory=list)
    nodes: int = 0
    spans: list[Span] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    written: list[Written] = field(default_factory=list)
    read: list[Read] = field(default_factory=list)
    committed: list[Committed] = field(default_factory=list)
    remarks: list[Remark] = field(default_factory=list)
    end_s: float = 0.0
