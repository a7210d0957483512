"""Work on many partitions, one of which may have something wrong with it that nobody thought of."""

from __future__ import annotations

import logging
from collections.abc import Callable

log = logging.getLogger(__name__)


def attempt(work: Callable[[], object], failure: str, *about: object) -> bool:
    """Do ``work``; whether that went well. Otherwise the log says so, and the next one's turn comes."""
    try:
        work()
    except Exception:
        log.exception(failure, *about)
        return False
    return True
