"""The live plot, and a little receiver for the webhook.

    GET  /        the page                    POST /webhook   takes an alert, each once (Idempotency-Key)
    GET  /live    server-sent events          GET  /webhook   the alerts that it took
    GET  /state   the same, once              POST /burst     asks the application for a burst of jobs

Like any reader it keeps nothing: it starts with the last minutes of the topics.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from confluent_kafka import OFFSET_END, Consumer, KafkaException, Message, TopicPartition
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from examples.common.web import file_of, live, options, serve
from examples.metrics import topics
from examples.metrics.incidents import WATCHES, Watch, watches

READ_MAX = 2000
READ_WAIT_S = 0.1
ASK_TIMEOUT_S = 20.0
SENT_EVERY_S = 0.5
PLOTTED_MS = 60_000
ALERTS_SINCE_MS = 60 * 60 * 1000
POINTS_MAX = 400
SERIES_MAX = 200
ALERTS_MAX = 200
SHOWN_ALERTS = 12
WEBHOOK_BYTES_MAX = 64 * 1024


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Plot:
    """What the page shows: the last points of each series, and the incidents."""

    def __init__(self, watched: list[Watch]) -> None:
        # By incident, its newest message; the newest incident last.
        self.incidents: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._watches = watched
        self._series: dict[tuple[str, str], deque[dict[str, Any]]] = {}

    def add_score(self, score: dict[str, Any]) -> None:
        key = score["host"], score["series"]
        if key not in self._series and len(self._series) >= SERIES_MAX:
            return
        self._series.setdefault(key, deque(maxlen=POINTS_MAX)).append(score)

    def add_alert(self, alert: dict[str, Any]) -> None:
        self.incidents[alert["incident"]] = alert
        if len(self.incidents) > ALERTS_MAX:
            self.incidents.popitem(last=False)

    def snapshot(self, at_ms: int) -> dict[str, Any]:
        """All of it, the series in the order of the watches."""
        drawn = []
        for rank, watch in enumerate(self._watches):
            for (host, name), points in self._series.items():
                recent = [p for p in points if p["at_ms"] > at_ms - PLOTTED_MS]
                if not recent or not watch.matches(name):
                    continue
                last = recent[-1]
                drawn.append(
                    {
                        "rank": rank,
                        "host": host,
                        "series": name,
                        "title": watch.title or name,
                        "unit": watch.unit,
                        "ready": watch.sigma is None or last["score"] is not None,
                        "firing": last["firing"],
                        "value": last["value"],
                        "points": [
                            [p["at_ms"], p["value"], p["low"], p["high"], int(p["firing"])] for p in recent
                        ],
                    }
                )
        shown = list(self.incidents.values())[: -SHOWN_ALERTS - 1 : -1]
        return {"at_ms": at_ms, "plotted_ms": PLOTTED_MS, "series": drawn, "alerts": shown}


class Page:
    """The consumer, what it feeds, and the webhook."""

    def __init__(self, bootstrap: str, watched: list[Watch], directory: Path) -> None:
        self.plot = Plot(watched)
        self.failed = False
        # What the webhook took, by its key, and how often something came again.
        self.taken: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self.again = 0
        self._directory = directory
        self._stopping = False
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "client.id": "page",
                # librdkafka wants a name, though nothing is committed under it.
                "group.id": "metrics.page",
                "enable.auto.commit": False,
            }
        )

    def _begin(self) -> None:
        since = [
            TopicPartition(topics.SCORES, 0, now_ms() - PLOTTED_MS),
            TopicPartition(topics.ALERTS, 0, now_ms() - ALERTS_SINCE_MS),
        ]
        found = self._consumer.offsets_for_times(since, ASK_TIMEOUT_S)
        for partition in found:
            if partition.error is not None:
                raise KafkaException(partition.error)
            if partition.offset == OFFSET_END:
                # As a number: something may come before the first fetch.
                partition.offset = self._consumer.get_watermark_offsets(partition, ASK_TIMEOUT_S)[1]
        self._consumer.assign(found)

    def _read(self) -> list[Message]:
        messages = self._consumer.consume(READ_MAX, READ_WAIT_S)
        for message in messages:
            if error := message.error():
                raise KafkaException(error)
        return messages

    async def read(self) -> None:
        """Read until the end. What is shown changes in the event loop only."""
        await asyncio.to_thread(self._begin)
        while not self._stopping:
            for message in await asyncio.to_thread(self._read):
                content = topics.decode(message.value())
                if content is None:
                    continue
                if message.topic() == topics.ALERTS:
                    self.plot.add_alert(content)
                else:
                    self.plot.add_score(content)

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        def over(reading: asyncio.Task[None]) -> None:
            # A plot that stands still would look like a quiet day: end, and be started again.
            self.failed = not self._stopping
            app.state.server.should_exit = True

        reading = asyncio.create_task(self.read())
        reading.add_done_callback(over)
        yield
        self._stopping = True
        try:
            await reading
        finally:
            await asyncio.to_thread(self._consumer.close)

    def snapshot(self) -> dict[str, Any]:
        heard = list(self.taken.values())[: -SHOWN_ALERTS - 1 : -1]
        return {**self.plot.snapshot(now_ms()), "webhook": {"heard": heard, "again": self.again}}

    async def state(self, _request: Request) -> Response:
        return JSONResponse(self.snapshot(), headers={"Cache-Control": "no-store"})

    async def webhook(self, request: Request) -> Response:
        if request.method == "GET":
            return JSONResponse({"taken": list(self.taken), "again": self.again})
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > WEBHOOK_BYTES_MAX:
                return JSONResponse({"error": "too large"}, 413)
        try:
            alert = json.loads(bytes(body))
            key = request.headers.get("idempotency-key") or f"{alert['incident']}/{alert['state']}"
            line = {n: alert[n] for n in ("state", "title", "value", "unit", "worst", "reasons", "at_ms")}
        except (ValueError, KeyError, TypeError):
            return JSONResponse({"error": "no alert"}, 400)
        if key in self.taken:
            self.again += 1
        else:
            self.taken[key] = line
            if len(self.taken) > ALERTS_MAX:
                self.taken.popitem(last=False)
        return Response(status_code=204)

    async def burst(self, _request: Request) -> Response:
        (self._directory / "burst").touch()
        return Response(status_code=202)


def application(page: Page) -> Starlette:
    files = file_of(Path(__file__).with_name("page"))
    return Starlette(
        routes=[
            Route("/live", live(page.snapshot, SENT_EVERY_S)),
            Route("/state", page.state),
            Route("/webhook", page.webhook, methods=["GET", "POST"]),
            Route("/burst", page.burst, methods=["POST"]),
            Route("/", files),
            Route("/{name}", files),
        ],
        lifespan=page.lifespan,
    )


def main() -> None:
    parser = options(__doc__, "127.0.0.1:8082")
    parser.add_argument("--watches", type=Path, default=WATCHES, help="what is shown (watches.toml)")
    parser.add_argument("--directory", type=Path, required=True, help="of the application (spool.py)")
    arguments = parser.parse_args()
    topics.create(arguments.bootstrap)
    page = Page(arguments.bootstrap, watches(arguments.watches), arguments.directory)
    serve(application(page), arguments.listen, arguments.ready)
    if page.failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
