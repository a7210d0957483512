"""`ottla serve` as a process: its settings, signals, ready line and exit code."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Mapping

import uvloop

from ottla.config import ConfigError, parse_properties
from ottla.env.disk import raise_open_files_max
from ottla.env.memory import keep_freed_memory, never_collect_what_is_there
from ottla.env.network import show_address
from ottla.errors import KafkaError
from ottla.logging_setup import set_up
from ottla.metadata.store import StoreError
from ottla.node import Node, NodeSettings, StartError

log = logging.getLogger(__name__)

# The name of a cluster that was given none.
CLUSTER_DEFAULT = "ottla"
# Kafka's names for what --node-id says.
NODE_ID_NAMES = frozenset(("node.id", "broker.id"))
NODE_ID_MISSING = (
    "a node of a cluster needs an id of its own, since the store knows nodes by it: give --node-id N, "
    "another one for each node, and always the same one with the same data"
)
# What a start may take to end in order, once the node is asked to stop, before it is broken off.
START_GRACE_S = 2.0
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def run(
    *,
    data: str | None,
    listen: str | None,
    node_id: int | None,
    advertise: str | None,
    config_file: str | None,
    overrides: Mapping[str, str],
    log_format: str,
    log_level: str,
    store: str | None = None,
    cluster: str | None = None,
    rack: str | None = None,
) -> int:
    """Serve until SIGTERM or SIGINT. The exit code: 0 after a clean stop, 1 where it cannot start.

    What is None is as the configuration file says, or Ottla's default. With ``store`` the node is one of a
    cluster, and must have been given its id.
    """
    set_up(log_format, log_level)
    raise_open_files_max()
    keep_freed_memory()
    try:
        properties = dict(overrides)
        if config_file is not None:
            properties = parse_properties(_read(config_file)) | properties
        if store is not None and node_id is None and not properties.keys() & NODE_ID_NAMES:
            raise ConfigError(NODE_ID_MISSING)
        host, port = _address(listen) if listen else (None, None)
        settings = NodeSettings(
            data=data,
            host=host,
            port=port,
            node_id=node_id,
            advertise=_address(advertise) if advertise else None,
            store=store,
            cluster=cluster or CLUSTER_DEFAULT,
            rack=rack,
            properties=properties,
        )
        try:
            return uvloop.run(_serve(settings))
        finally:
            # Whoever asks again, while Python ends, gets the exit code all the same.
            for signum in STOP_SIGNALS:
                signal.signal(signum, signal.SIG_IGN)
    except (ConfigError, StartError, StoreError, KafkaError, OSError) as error:
        print(f"ottla: {error}", file=sys.stderr)  # noqa: T201 - the one line that says why
        return 1


async def _serve(settings: NodeSettings) -> int:
    node = Node(settings)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()

    def ask_to_stop(*_: object) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(stopping.set)

    for signum in STOP_SIGNALS:
        # Not the loop's own way, which gives signals back their deadly effect as soon as it is closed.
        signal.signal(signum, ask_to_stop)
    if not await _start(node, stopping):
        log.info("stopped before it had started")
        return 0
    never_collect_what_is_there()
    try:
        print(f"ottla: listening on {show_address(*node.address)}", flush=True)  # noqa: T201 - what scripts wait for
    except OSError as error:
        # Whoever started us has closed the pipe, or its file is on a full disk: clients need neither.
        log.warning("the line that says where we listen could not be printed: %s", error)
        # It is still in Python's buffer, whose flush at the very end would fail and spoil the exit code.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    await _first(stopping, node.failed)
    if node.failed.is_set():
        await node.kill()
        return 1
    log.info("stopping: finishing what is in flight")
    await node.stop()
    log.info("stopped")
    return 0


async def _start(node: Node, stopping: asyncio.Event) -> bool:
    """Start the node; False where it was asked to stop meanwhile, and was not about to be ready.

    A node may wait for its cluster, which nobody has to wait for who wants it to stop.
    """
    starting = asyncio.ensure_future(node.start())
    asked = asyncio.ensure_future(stopping.wait())
    await asyncio.wait((starting, asked), return_when=asyncio.FIRST_COMPLETED)
    asked.cancel()
    if not starting.done():
        await asyncio.wait((starting,), timeout=START_GRACE_S)
    if not starting.done():
        starting.cancel()
        await asyncio.wait((starting,))
        if starting.cancelled():
            return False
    starting.result()
    return True


async def _first(*events: asyncio.Event) -> None:
    """Return when one of the events is set."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()


def _read(config_file: str) -> str:
    """The text of a server.properties file. ConfigError: it cannot be read."""
    try:
        with open(config_file, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ConfigError(f"the configuration file {config_file} cannot be read: {reason.lower()}") from error


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)
