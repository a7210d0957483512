"""Serving a page and its live figures: a server that says where it is, files, and server-sent events."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

BACKLOG = 128
# More connections than that are answered with 503 by uvicorn itself.
CONNECTIONS_MAX = 200
STREAMS_MAX = 50
STOP_TIMEOUT_S = 10
# How often a stream looks whether the server is to stop, or its reader is gone.
LOOK_S = 0.25

SECURITY = {
    "Content-Security-Policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


def free_port(wanted: int, host: str = "127.0.0.1") -> int:
    """`wanted` if it is free, otherwise 0: any port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, wanted))
        except OSError:
            return 0
    return wanted


def options(description: str | None, listen: str) -> argparse.ArgumentParser:
    """The options of a program that serves a page out of a broker; `listen` is where it does by default."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--bootstrap", required=True, metavar="HOST:PORT")
    made.add_argument("--listen", default=listen, metavar="HOST:PORT")
    made.add_argument("--ready", type=Path, help="write the address there when it can be connected to")
    return made


def serve(app: Starlette, listen: str, ready: Path | None = None) -> None:
    """Serve on `listen` (HOST:PORT) until SIGTERM or SIGINT; what is under way is finished.

    The server's address goes to the file `ready` as soon as it can be connected to."""
    host, _, port = listen.rpartition(":")
    bound = socket.create_server((host, int(port)), backlog=BACKLOG)
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        limit_concurrency=CONNECTIONS_MAX,
        timeout_graceful_shutdown=STOP_TIMEOUT_S,
        lifespan="on",
    )
    server = uvicorn.Server(config)
    app.state.server = server
    # uvicorn raises the signal again after its own end, for whoever listened before: nobody need die of it.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    if ready is not None:
        draft = ready.with_suffix(".draft")
        draft.write_text(f"http://{host}:{bound.getsockname()[1]}")
        draft.rename(ready)
    server.run(sockets=[bound])


def file_of(folder: Path) -> Callable[[Request], Response]:
    """Serves the files of one flat folder; `/` is index.html."""
    kinds = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
    files = {path.name: path for path in folder.iterdir() if path.suffix in kinds}

    def endpoint(request: Request) -> Response:
        path = files.get(request.path_params.get("name") or "index.html")
        if path is None:
            return PlainTextResponse("not found\n", 404)
        return Response(path.read_bytes(), media_type=kinds[path.suffix], headers=SECURITY)

    return endpoint


def live(figures: Callable[[], Mapping[str, Any]], every_s: float) -> Callable[[Request], Any]:
    """Sends what `figures` gives, as server-sent events, to whoever reads them."""
    readers: dict[int, Request] = {}

    async def events(request: Request) -> AsyncIterator[str]:
        readers[id(request)] = request
        loop = asyncio.get_running_loop()
        due_s = loop.time()
        try:
            while not request.app.state.server.should_exit and not await request.is_disconnected():
                if loop.time() >= due_s:
                    due_s = loop.time() + every_s
                    yield f"data: {json.dumps(figures(), separators=(',', ':'))}\n\n"
                await asyncio.sleep(min(LOOK_S, every_s))
        finally:
            del readers[id(request)]

    async def endpoint(request: Request) -> Response:
        if len(readers) >= STREAMS_MAX:
            return PlainTextResponse("too many readers\n", 503, headers={"Retry-After": "10"})
        return StreamingResponse(
            events(request), media_type="text/event-stream", headers={"Cache-Control": "no-store"}
        )

    return endpoint
