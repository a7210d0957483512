"""The page of live counts: reads the topic, counts, and sends the counts to whoever looks.

It keeps nothing: when it starts it asks the broker which offsets are an hour old, and counts from there. So
it can be killed at any time, and there may be as many of them as you like.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

from confluent_kafka import OFFSET_END, Consumer, KafkaException, Message, TopicPartition
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from examples.activity import topics
from examples.activity.counts import WINDOW_MS, Counts
from examples.common.web import file_of, live, options, serve

READ_MAX = 1000
READ_WAIT_S = 0.1
ASK_TIMEOUT_S = 20.0
SENT_EVERY_S = 0.5


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Dashboard:
    """The consumer, and the counts that it feeds."""

    def __init__(self, bootstrap: str) -> None:
        self.counts = Counts()
        self.failed = False
        self._stopping = False
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "client.id": "dashboard",
                # librdkafka wants a name, though nothing is committed under it.
                "group.id": "activity.dashboard",
                "enable.auto.commit": False,
            }
        )

    def _begin(self) -> dict[int, int]:
        """Assign each partition from the first offset of the window; the ends that there are now."""
        since = [TopicPartition(topics.TOPIC, p, now_ms() - WINDOW_MS) for p in range(topics.PARTITIONS)]
        found = self._consumer.offsets_for_times(since, ASK_TIMEOUT_S)
        ends = {}
        for partition in found:
            if partition.error is not None:
                raise KafkaException(partition.error)
            _, end = self._consumer.get_watermark_offsets(partition, ASK_TIMEOUT_S)
            if partition.offset == OFFSET_END:
                # Nothing is that young yet. The end as a number: something may come before the first fetch.
                partition.offset = end
            if partition.offset < end:
                ends[partition.partition] = end
        self._consumer.assign(found)
        return ends

    def _read(self) -> list[Message]:
        messages = self._consumer.consume(READ_MAX, READ_WAIT_S)
        for message in messages:
            if error := message.error():
                raise KafkaException(error)
        return messages

    async def _count_some(self) -> dict[int, int]:
        """Count what is there; the offsets read up to. The counts change in the event loop only."""
        read = {}
        for message in await asyncio.to_thread(self._read):
            read[message.partition()] = message.offset() + 1
            if event := topics.from_record(message.value()):
                self.counts.add(event, message.timestamp()[1])
        return read

    async def catch_up(self) -> None:
        """Count the hour that is over: whoever asks sees all of it or waits."""
        ends = await asyncio.to_thread(self._begin)
        while ends and not self._stopping:
            for partition, offset in (await self._count_some()).items():
                if offset >= ends.get(partition, offset + 1):
                    del ends[partition]

    async def count(self) -> None:
        """Count what comes, until the end."""
        while not self._stopping:
            await self._count_some()

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        def over(counting: asyncio.Task[None]) -> None:
            # Figures that stand still would look like a quiet day: end, and be started again.
            self.failed = not self._stopping
            app.state.server.should_exit = True

        await self.catch_up()
        counting = asyncio.create_task(self.count())
        counting.add_done_callback(over)
        yield
        self._stopping = True
        try:
            await counting
        finally:
            await asyncio.to_thread(self._consumer.close)

    async def snapshot(self, _request: Request) -> Response:
        return JSONResponse(self.counts.snapshot(now_ms()), headers={"Cache-Control": "no-store"})


def application(dashboard: Dashboard) -> Starlette:
    page = file_of(Path(__file__).with_name("dashboard"))
    return Starlette(
        routes=[
            Route("/live", live(lambda: dashboard.counts.snapshot(now_ms()), SENT_EVERY_S)),
            Route("/counts", dashboard.snapshot),
            Route("/", page),
            Route("/{name}", page),
        ],
        lifespan=dashboard.lifespan,
    )


def main() -> None:
    arguments = options(__doc__, "127.0.0.1:8081").parse_args()
    topics.create(arguments.bootstrap)
    dashboard = Dashboard(arguments.bootstrap)
    serve(application(dashboard), arguments.listen, arguments.ready)
    if dashboard.failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
