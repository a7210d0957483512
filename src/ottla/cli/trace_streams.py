"""What nodes of this machine send to `ottla trace`: where they are found, and why they may not be."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator, Sequence
from http.client import HTTPConnection, HTTPException, HTTPResponse
from queue import SimpleQueue
from typing import Any, NamedTuple

from ottla.cli.data_directory import check_directory
from ottla.cli.errors import CliError, ExitCode
from ottla.env.unix import call
from ottla.log.checkpoints import PROPERTIES_BYTES_MAX, CheckpointDamaged, decode_properties
from ottla.log.data_dir import META_PROPERTIES_FILE, NODES_FOLDER
from ottla.numbers import INT_MAX, parse_whole
from ottla.observe.local import SOCKET_FILE

# How long a node may take to answer.
ANSWER_S_MAX = 10.0
LINE_BYTES_MAX = 1024 * 1024
# Lines that are kept for who reads slowly.
LINES_KEPT_MAX = 1_000


class Stream(NamedTuple):
    """The lines of one node."""

    folder: str
    response: HTTPResponse


class _UnixConnection(HTTPConnection):
    """To a node, by the socket in its data directory."""

    def __init__(self, folder: str) -> None:
        super().__init__("localhost")
        self.made: socket.socket
        self._folder = folder

    def connect(self) -> None:
        # ``sock`` is the answer's as soon as that has begun.
        self.sock = self.made = call(self._folder, SOCKET_FILE, ANSWER_S_MAX)


def open_streams(data: str, nodes: Sequence[int], query: str) -> list[Stream]:
    """The traces that were asked for, begun. CliError where there is none."""
    check_directory(data)
    folders = _folders(data, nodes)
    streams: list[Stream] = []
    failures: list[CliError] = []
    for folder in folders:
        try:
            streams.append(_begin(folder, query))
        except OSError as error:
            failures.append(_explained(folder, error))
    # Of nodes that were not named some may not run.
    if failures and (nodes or not streams):
        raise failures[0]
    return streams


def _folders(data: str, nodes: Sequence[int]) -> list[str]:
    """Where the nodes have their data: all of the directory, or those that were named."""
    inner = os.path.join(data, NODES_FOLDER)
    names = os.listdir(inner) if os.path.isdir(inner) else []
    ids = sorted(found for name in names if (found := parse_whole(name, 0, INT_MAX)) is not None)
    by_id = {one: os.path.join(inner, str(one)) for one in ids}
    if not nodes:
        return [data, *by_id.values()]
    own = _own_id(data)
    if own is not None:
        by_id[own] = data
    for one in nodes:
        if one not in by_id:
            known = ", ".join(map(str, sorted(by_id))) or "none"
            raise CliError(f"node {one} has no data in {data}: there is {known}", ExitCode.NOT_FOUND)
    return [by_id[one] for one in dict.fromkeys(nodes)]


def _own_id(data: str) -> int | None:
    """The id of the node that has the directory itself; None where none has yet."""
    try:
        with open(os.path.join(data, META_PROPERTIES_FILE), "rb") as file:
            return parse_whole(
                decode_properties(file.read(PROPERTIES_BYTES_MAX)).get("node.id", ""), 0, INT_MAX
            )
    except (FileNotFoundError, CheckpointDamaged):
        return None


def _begin(folder: str, query: str) -> Stream:
    connection = _UnixConnection(folder)
    try:
        connection.request("GET", f"/trace?{query}")
        response = connection.getresponse()
    except HTTPException as error:
        raise CliError(f"what listens at {folder}/{SOCKET_FILE} is no node: {error!r}") from None
    if response.status != 200:
        why = response.read(LINE_BYTES_MAX).decode(errors="replace").strip()
        connection.close()
        raise CliError(why, ExitCode.USAGE if response.status == 400 else ExitCode.FAILED)
    # It may have nothing to tell for long; it is told when nobody is there any more.
    connection.made.settimeout(None)
    return Stream(folder, response)


def _explained(folder: str, error: OSError) -> CliError:
    """What is in the way of a trace, and what to do."""
    if isinstance(error, PermissionError):
        return CliError(
            f"the node in {folder} belongs to another user: run this as the one who runs it, or as root"
        )
    if isinstance(error, FileNotFoundError | ConnectionRefusedError):
        return CliError(
            f"no node runs in {folder}: start it with 'ottla serve --data {folder}', or give the data "
            "directory of the one that runs with --data",
            ExitCode.UNREACHABLE,
        )
    if isinstance(error, TimeoutError):
        return CliError(
            f"the node in {folder} does not answer within {ANSWER_S_MAX:.0f} s: is it paused, or very busy?",
            ExitCode.UNREACHABLE,
        )
    return CliError(f"{folder}/{SOCKET_FILE}: {(error.strerror or str(error)).lower()}")


# ------------------------------------------------------------ reading


def lines_of(streams: Sequence[Stream]) -> Iterator[dict[str, Any]]:
    """What all of them send, as it comes. CliError in the end where one has broken off."""
    queue: SimpleQueue[tuple[Stream, dict[str, Any] | None]] = SimpleQueue()
    room = threading.Semaphore(LINES_KEPT_MAX)

    def read(stream: Stream) -> None:
        ended = False
        try:
            while not ended and (line := stream.response.readline(LINE_BYTES_MAX)):
                document = json.loads(line)
                ended = "ended" in document
                # Whoever reads slowly has the node leave lines out, not this process keep them.
                room.acquire()
                queue.put((stream, document))
        except (OSError, HTTPException, ValueError):
            pass
        if not ended:
            queue.put((stream, None))

    for stream in streams:
        threading.Thread(target=read, args=(stream,), daemon=True).start()
    going_on, broken = len(streams), ""
    while going_on:
        stream, document = queue.get()
        if document is None:
            broken = stream.folder
            going_on -= 1
            continue
        room.release()
        going_on -= "ended" in document
        yield document
    if broken:
        raise CliError(f"the node in {broken} has ended: it was stopped, or it died")
