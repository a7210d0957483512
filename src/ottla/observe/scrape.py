"""One look at all of a node, in pieces: between two of them the loop serves whatever has come."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial

from ottla.env.clock import Clock
from ottla.env.slices import Slices
from ottla.observe.catalogue import FAILURES, METRICS, SUBJECTS
from ottla.observe.exposition import Page
from ottla.observe.parts import Parts

log = logging.getLogger(__name__)

# How long a look goes on at a stretch. Who goes through much yields at least once in half a millisecond.
STRETCH_MS = 2


class Scrape:
    """Looks at ``parts`` whenever it is asked to."""

    def __init__(self, parts: Parts, slices: Slices, clock: Clock) -> None:
        self._parts = parts
        self._slices = slices
        self._clock = clock

    async def text(self, *, openmetrics: bool) -> bytes:
        """Everything, as it was found."""
        page = await self.page()
        found: list[bytes] = []
        await self._run(self._write(page, found, openmetrics))
        return b"".join(found)

    async def page(self) -> Page:
        """Everything, line by line."""
        page = Page()
        self._parts.volume_bytes = await self._look_at_volume()
        await self._run(self._collect(page))
        return page

    async def _look_at_volume(self) -> tuple[int, int] | None:
        """In a thread, where the disk may hang."""
        services = self._parts.services
        try:
            return await services.disk.run(partial(services.disk.free_bytes, services.log_manager.path))
        except OSError:
            return None

    def _collect(self, page: Page) -> Iterator[None]:
        parts = self._parts
        get = parts.services.config.get
        parts.topics.count_max, parts.groups.count_max = get("metrics.topics.max"), get("metrics.groups.max")
        for subject in SUBJECTS:
            try:
                yield from subject.collect(parts, page)
            except Exception:
                # All else is to be told all the same.
                parts.failures += 1
                log.exception("%s: metrics cannot be collected", subject.title)
            yield
        page.add(FAILURES, parts.failures)

    def _write(self, page: Page, found: list[bytes], openmetrics: bool) -> Iterator[None]:
        for text in page.write(METRICS, openmetrics=openmetrics):
            found.append(text)
            yield

    async def _run(self, pieces: Iterator[None]) -> None:
        clock = self._clock
        ends_ms = clock.monotonic_ms() + STRETCH_MS
        for _ in pieces:
            if clock.monotonic_ms() >= ends_ms:
                await self._slices.pause()
                ends_ms = clock.monotonic_ms() + STRETCH_MS
