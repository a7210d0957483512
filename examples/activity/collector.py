"""The shop's web server: serves the page, and puts what the page tells into the topic.

    GET  /            the shop                       GET  /schema   what an event may be, as JSON Schema
    GET  /consent     whether this visitor agreed    GET  /health   figures of this process
    POST /consent     to agree, or to take it back
    POST /events      a batch of events

A batch is answered with 204 once the broker has all of it. Before that: 403 without consent, 400 for what is
no event, 413 and 415 for what is no batch, 429 for a session that sends too much, 503 when too much waits for
the broker; the last two with Retry-After, and the page sends the batch again.

No cookie is set before the visitor agrees. Then there are two: the consent, and a random session that ends
after half an hour of nothing. Who takes the consent back has neither.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import secrets
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
from confluent_kafka import KafkaError, Message, Producer
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from examples.activity import events, topics
from examples.activity.limits import Limits
from examples.common.web import file_of, options, serve

BODY_BYTES_MAX = 64 * 1024
BODY_TIMEOUT_S = 5.0
# Events that wait for the broker, in all requests together. Past that: 503.
WAITING_MAX = 5000
ACKNOWLEDGED_TIMEOUT_S = 5.0
DELIVERY_TIMEOUT_MS = 15_000
FLUSH_TIMEOUT_S = 20.0
RETRY_AFTER_S = 2

CONSENT_COOKIE = "consent"
CONSENT_S = 180 * 24 * 60 * 60
SESSION_COOKIE = "session"
SESSION_S = 30 * 60


class Refused(Exception):
    """A request that gets a status instead of a place in the topic."""

    def __init__(self, status: int, why: str, retry_after_s: float | None = None) -> None:
        super().__init__(why)
        self.status = status
        self.retry_after_s = retry_after_s


class Topic:
    """The producer, for an event loop: a batch is a future that is done when the broker has all of it."""

    def __init__(self, bootstrap: str, waiting_max: int = WAITING_MAX) -> None:
        self.waiting = 0
        self.failed = 0
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "client.id": "collector",
                "acks": "all",
                "enable.idempotence": True,
                "linger.ms": 10,
                "compression.type": "zstd",
                "delivery.timeout.ms": DELIVERY_TIMEOUT_MS,
                # The limit is ours: nothing is refused in between.
                "queue.buffering.max.messages": 2 * waiting_max,
            }
        )
        self._waiting_max = waiting_max
        self._loop = asyncio.get_running_loop()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="deliveries")
        self._thread.start()

    def _poll(self) -> None:
        while not self._stopping.is_set():
            self._producer.poll(0.1)

    def send(self, session: str, records: list[bytes]) -> asyncio.Future[None]:
        """All of a batch or nothing: Refused when it does not fit."""
        if self.waiting + len(records) > self._waiting_max:
            raise Refused(503, "too much waits for the broker", RETRY_AFTER_S)
        done: asyncio.Future[None] = self._loop.create_future()
        left = len(records)

        def delivered(error: KafkaError | None) -> None:
            nonlocal left
            left -= 1
            self.waiting -= 1
            self.failed += error is not None
            if done.done():
                return
            if error is not None:
                done.set_exception(Refused(503, f"not delivered: {error.str()}", RETRY_AFTER_S))
            elif left == 0:
                done.set_result(None)

        def on_delivery(error: KafkaError | None, _message: Message) -> None:
            self._loop.call_soon_threadsafe(delivered, error)

        self.waiting += len(records)
        for record in records:
            # By session: what one visitor does stays in order.
            self._producer.produce(topics.TOPIC, record, session, on_delivery=on_delivery)
        # Who stopped waiting for it does not hear of its failure; `failed` does.
        done.add_done_callback(lambda f: None if f.cancelled() else f.exception())
        return done

    async def close(self) -> int:
        """Send what waits; how many events could not be sent."""
        await asyncio.to_thread(self._producer.flush, FLUSH_TIMEOUT_S)
        self._stopping.set()
        await asyncio.to_thread(self._thread.join)
        # The last callbacks are on their way into this loop.
        await asyncio.sleep(0)
        return self.waiting + self.failed


class Collector:
    """The endpoints, and what they share."""

    def __init__(self, bootstrap: str, waiting_max: int = WAITING_MAX, report: Path | None = None) -> None:
        self.topic: Topic | None = None
        self.answered: Counter[int] = Counter()
        self.accepted = 0
        self._bootstrap = bootstrap
        self._waiting_max = waiting_max
        self._report = report
        self._limits = Limits()

    @contextlib.asynccontextmanager
    async def lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        """uvicorn ends it when no request is left: what still waits is flushed."""
        self.topic = Topic(self._bootstrap, self._waiting_max)
        yield
        lost = await self.topic.close()
        if self._report is not None:
            self._report.write_text(json.dumps({**self.figures(), "lost": lost}))

    def figures(self) -> dict[str, Any]:
        waiting = self.topic.waiting if self.topic is not None else 0
        return {"accepted": self.accepted, "waiting": waiting, "answered": dict(self.answered)}

    async def health(self, _request: Request) -> Response:
        return JSONResponse(self.figures())

    async def schema(self, _request: Request) -> Response:
        return JSONResponse(msgspec.json.schema(events.Batch))

    async def consent(self, request: Request) -> Response:
        """What the visitor decided; POST {"granted": true} or false decides."""
        headers = {"Cache-Control": "no-store"}
        if request.method == "GET":
            return JSONResponse({"granted": agreed(request)}, headers=headers)
        try:
            same_origin(request)
            wish = msgspec.json.decode(await body_of(request), type=dict[str, bool])
        except msgspec.DecodeError:
            return JSONResponse({"error": 'not {"granted": true} or false'}, 400)
        except Refused as refusal:
            return self._refuse(refusal)
        granted = wish.get("granted", False)
        response = JSONResponse({"granted": granted}, headers=headers)
        if granted:
            set_cookie(response, CONSENT_COOKIE, "yes", CONSENT_S)
            set_cookie(response, SESSION_COOKIE, secrets.token_hex(16), SESSION_S)
        else:
            response.delete_cookie(CONSENT_COOKIE)
            response.delete_cookie(SESSION_COOKIE)
        return response

    async def collect(self, request: Request) -> Response:
        """A batch: checked, bounded, and in the topic before it is answered."""
        try:
            response = await self._collect(request)
        except Refused as refusal:
            return self._refuse(refusal)
        self.answered[response.status_code] += 1
        return response

    async def _collect(self, request: Request) -> Response:
        same_origin(request)
        if not agreed(request):
            raise Refused(403, "no consent")
        session = request.cookies.get(SESSION_COOKIE, "")
        if len(session) != 32 or not session.isalnum():
            session = secrets.token_hex(16)
        try:
            batch = events.read_batch(await body_of(request))
        except msgspec.DecodeError as error:
            raise Refused(400, str(error)) from None
        if wait_s := self._limits.wait_s(session, len(batch), time.monotonic()):
            raise Refused(429, "too many events in this session", wait_s)
        assert self.topic is not None
        received_ms = time.time_ns() // 1_000_000
        delivery = self.topic.send(session, [events.as_record(e, session, received_ms) for e in batch])
        try:
            await asyncio.wait_for(asyncio.shield(delivery), ACKNOWLEDGED_TIMEOUT_S)
        except TimeoutError:
            # It may still get there, and will come again: readers know an event by its id.
            raise Refused(503, "the broker does not answer", RETRY_AFTER_S) from None
        self.accepted += len(batch)
        response = Response(status_code=204)
        set_cookie(response, SESSION_COOKIE, session, SESSION_S)
        return response

    def _refuse(self, refusal: Refused) -> Response:
        self.answered[refusal.status] += 1
        headers = {}
        if refusal.retry_after_s is not None:
            headers["Retry-After"] = str(math.ceil(refusal.retry_after_s))
        return JSONResponse({"error": str(refusal)}, refusal.status, headers)


def set_cookie(response: Response, name: str, value: str, seconds: int) -> None:
    """Ours alone: no script reads it, no other site sends it. Behind TLS, add `secure=True`."""
    response.set_cookie(name, value, max_age=seconds, httponly=True, samesite="strict")


def agreed(request: Request) -> bool:
    """Whether the visitor agreed; a browser that says Global Privacy Control says no."""
    return request.cookies.get(CONSENT_COOKIE) == "yes" and request.headers.get("sec-gpc") != "1"


def same_origin(request: Request) -> None:
    """Refuse what another site's page sends in our visitor's name."""
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        raise Refused(403, "another site's page")


async def body_of(request: Request) -> bytes:
    """The body of a JSON request, never more of it than BODY_BYTES_MAX."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise Refused(415, "not application/json")
    too_large = Refused(413, f"more than {BODY_BYTES_MAX} bytes")
    length = request.headers.get("content-length", "0")
    if length.isdigit() and int(length) > BODY_BYTES_MAX:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for part in request.stream():
                body += part
                if len(body) > BODY_BYTES_MAX:
                    raise too_large
    except TimeoutError:
        raise Refused(408, "too slow") from None
    except ClientDisconnect:
        raise Refused(400, "half a request") from None
    return bytes(body)


def application(collector: Collector) -> Starlette:
    page = file_of(Path(__file__).with_name("shop"))
    return Starlette(
        routes=[
            Route("/consent", collector.consent, methods=["GET", "POST"]),
            Route("/events", collector.collect, methods=["POST"]),
            Route("/schema", collector.schema),
            Route("/health", collector.health),
            Route("/", page),
            Route("/{name}", page),
        ],
        lifespan=collector.lifespan,
    )


def main() -> None:
    parser = options(__doc__, "127.0.0.1:8080")
    parser.add_argument(
        "--waiting-max", type=int, default=WAITING_MAX, help="events that wait for the broker"
    )
    parser.add_argument("--report", type=Path, help="write the last figures there, as JSON")
    arguments = parser.parse_args()
    topics.create(arguments.bootstrap)
    collector = Collector(arguments.bootstrap, arguments.waiting_max, arguments.report)
    serve(application(collector), arguments.listen, arguments.ready)


if __name__ == "__main__":
    main()
