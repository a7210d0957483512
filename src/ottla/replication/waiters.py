"""Requests that wait for a partition to change."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

log = logging.getLogger(__name__)

Waiter = Callable[[], None]


def tell(waiters: Iterable[Waiter]) -> None:
    """Tell each, whatever becomes of another."""
    for waiter in waiters:
        try:
            waiter()
        except Exception:
            log.exception("a request that waited for a partition could not be resumed")
