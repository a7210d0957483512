"""What a node tells by HTTP, while it is asked to: opened, moved and closed as ``metrics.listener`` says."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
from functools import partial
from http import HTTPStatus
from typing import TypeVar

from ottla.env.network import Network, show_address
from ottla.observe.clients import Clients
from ottla.observe.exposition import OPENMETRICS, PROMETHEUS, accepts_openmetrics
from ottla.observe.hosts import guard
from ottla.observe.http import HttpServer, Response, Route
from ottla.observe.parts import Parts
from ottla.observe.readiness import reasons
from ottla.observe.request import Request
from ottla.observe.scrape import Scrape
from ottla.observe.watching import Watching

log = logging.getLogger(__name__)

T = TypeVar("T")

# What is compressed where a client takes it, at the level that costs least.
GZIP_BYTES_MIN, GZIP_LEVEL = 1024, 1
JSON_LINES = "application/x-ndjson"
JSON = "application/json"


class Observer:
    """``open`` it, ``close`` it in the end. ``routes`` may be added to."""

    def __init__(self, parts: Parts, network: Network, watching: Watching) -> None:
        # Where it listens; None where it does not.
        self.address: tuple[str, int] | None = None
        self.routes: dict[str, Route] = {
            "/metrics": self._metrics,
            "/healthz": self._health,
            "/readyz": self._readiness,
            "/clients": self._clients_now,
        }
        services = parts.services
        self.parts = parts
        self._network = network
        self._watching = watching
        self._disk = services.disk
        self.scrape = Scrape(parts, services.slices, services.clock)
        # However many ask for everything, it is made for one at a time.
        self._turn = asyncio.Lock()
        self._clients = Clients(parts)
        self._server: HttpServer | None = None

    async def open(self, host: str, port: int) -> None:
        """Answer at an address. OSError where it cannot be had."""
        server = HttpServer(self._network, self.parts.services.clock, self.routes)
        address = await server.bind(host, port)
        server.manner = server.manner._replace(forbids=guard(host, address))
        await server.start()
        self._watching.begin()
        self._server, self.address = server, address
        # Clients are told that they may send metrics of their own.
        self.parts.services.telemetry.readers += 1
        log.info("metrics are served at http://%s/metrics", show_address(*address))

    def close(self) -> None:
        """Answer nobody any more."""
        server, self._server, self.address = self._server, None, None
        if server is not None:
            self.parts.services.telemetry.readers -= 1
            server.close()
            self._watching.end()

    # ------------------------------------------------------------ what is answered

    async def _metrics(self, request: Request) -> Response:
        openmetrics = accepts_openmetrics(request.headers.get("accept", ""))
        kind = OPENMETRICS if openmetrics else PROMETHEUS
        async with self._turn:
            text = await self.scrape.text(openmetrics=openmetrics)
            if request.takes_gzip and len(text) >= GZIP_BYTES_MIN:
                packed = await self._disk.run(partial(gzip.compress, text, GZIP_LEVEL))
                return Response(HTTPStatus.OK, packed, kind, "gzip")
        return Response(HTTPStatus.OK, text, kind)

    async def _health(self, request: Request) -> Response:
        """That there is an answer says all: the loop turns."""
        lag = self.parts.lag
        seen = "" if lag is None else f"\nthe event loop was late: {lag.late}"
        return Response(HTTPStatus.OK, f"ok{seen}\n".encode())

    async def _readiness(self, request: Request) -> Response:
        found = await self.parts.services.slices.run(reasons(self.parts))
        if not found:
            return Response(HTTPStatus.OK, b"ready\n")
        lines = "".join(json.dumps(reason, ensure_ascii=False) + "\n" for reason in found)
        return Response(HTTPStatus.SERVICE_UNAVAILABLE, lines.encode(), JSON_LINES)

    async def _clients_now(self, request: Request) -> Response:
        document = await self._clients.document()
        return Response(HTTPStatus.OK, json.dumps(document).encode() + b"\n", JSON)
