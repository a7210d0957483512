"""What a program did with records: the same words in the story, in the picture and beside it (pure)."""

from __future__ import annotations

from ottla.explore.recording.picture_svg import duration
from ottla.explore.recording.recording import Committed, Read, Written

NO_ANSWER = "no answer"
COUNTS = "it counts as read"


def fate(one: Written, *, is_timed: bool = False) -> str:
    """What became of what was sent: "offset 6, of which it never hears"."""
    if one.offset is None:
        text = one.result if one.result and one.result != "ok" else NO_ANSWER
    else:
        text = f"offset {one.offset}"
        if one.acknowledged_s is None:
            text += ", of which it never hears"
        elif is_timed:
            text += f", acknowledged after {duration(one.acknowledged_s - one.sent_s)}"
    return f"{text}{_transaction(one, 'whose end nobody has heard of')}"


def offsets(read: Read) -> str:
    """What was read: "orders-0 offsets 5 to 9"."""
    where = f"{read.topic}-{read.partition}"
    if read.first_offset == read.last_offset:
        return f"{where} offset {read.first_offset}"
    return f"{where} offsets {read.first_offset} to {read.last_offset}"


def refusal(one: Committed) -> str:
    """Why a commit does not count; empty if it does."""
    if one.result != "ok":
        return one.result or NO_ANSWER
    return f"transaction {one.transaction} was aborted" if one.outcome == "aborted" else ""


def commits(one: Committed) -> str:
    """ "commits orders-0 to 7 for group shipping: it counts as read", or why it does not."""
    outcome = refusal(one) or f"{COUNTS}{_transaction(one, 'not ended')}"
    return f"commits {one.topic}-{one.partition} to {one.offset} for group {one.group}: {outcome}"


def often(count: int, until_s: float) -> str:
    """Behind what happened so often in the same way."""
    return f", {count} times until {until_s:.3f}" if count > 1 else ""


def _transaction(one: Written | Committed, is_open: str) -> str:
    return f" (transaction {one.transaction}, {one.outcome or is_open})" if one.transaction else ""
