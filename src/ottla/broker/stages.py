"""What a client's connection is at: what is still done for it, whether a request may be handled."""

from __future__ import annotations

from enum import Enum


class Life(Enum):
    """What is still done for a client."""

    SERVED = "served"
    # Nothing more is received; what has come is answered. For a broker that stops.
    DRAINED = "drained"
    # The connection is closed. What came and wants no answer is still handled.
    GONE = "gone"
    # Nothing more is handled; what is pending is answered, then it ends.
    ENDING = "ending"
    # The connection is closed, or is about to be.
    ENDED = "ended"


class Stage(Enum):
    """Whether the next request may be handled."""

    READY = "ready"
    # A request is being handled. If that answers an earlier one, those behind it wait all the same.
    HANDLING = "handling"
    # The last one that was handled has to be answered first.
    BLOCKED = "blocked"
    # So much was handled at a stretch, of this client or of all, that others have their turn first.
    PUT_OFF = "put off"


class Flow(Enum):
    """Whether the client is listened to: it takes what it is sent, and is over no quota."""

    OPEN = "open"
    CHOKED = "choked"
