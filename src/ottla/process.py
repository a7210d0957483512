"""`ottla serve` as a process: its settings, signals, ready line and exit code."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import uvloop

from ottla.addresses import parse_address
from ottla.config import ConfigError, ConfigFile
from ottla.config.node import NodeSettings, StartError
from ottla.config.values import not_known
from ottla.env.alarm import Alarm
from ottla.env.clock import SystemClock, ThreadDelays, thread_cpu_ms
from ottla.env.disk import raise_open_files_max
from ottla.env.garbage import ShortCollections
from ottla.env.lag import LoopLag
from ottla.env.memory import keep_freed_memory
from ottla.env.network import show_address
from ottla.env.notify import ServiceManager
from ottla.errors import KafkaError
from ottla.extras import MissingExtra
from ottla.logging_setup import line, set_up
from ottla.metadata.store import StoreError

if TYPE_CHECKING:
    from ottla.node import Node
    from ottla.testing.control.server import Control

log = logging.getLogger(__name__)

# The name of a cluster that was given none.
CLUSTER_DEFAULT = "ottla"
# Kafka's names for what --node-id says.
NODE_ID_NAMES = frozenset(("node.id", "broker.id"))
NODE_ID_MISSING = (
    "a node of a cluster needs an id of its own, since the store knows nodes by it: give --node-id N, "
    "another one for each node, and always the same one with the same data"
)
# The environment's name for what programs must send to the control port.
CONTROL_TOKEN = "OTTLA_CONTROL_TOKEN"
# What a start may take to end in order, once the node is asked to stop, before it is broken off.
START_GRACE_S = 2.0
# Names that are no configuration, of which a refusal tells.
UNKNOWN_MAX = 5
# Beyond this it is no server.properties.
CONFIG_FILE_BYTES_MAX = 4 * 1024 * 1024
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
    replace: bool = False,
    control: str | None = None,
) -> int:
    """Serve until SIGTERM or SIGINT. The exit code: 0 after a clean stop, 1 where it cannot start.

    What is None is as the configuration file says, or Ottla's default. With ``store`` the node is one of a
    cluster, and must have been given its id; ``replace`` lets it begin with nothing in the place of one that
    the cluster knows. ``control`` is where tests may drive the node, by HTTP.
    """
    set_up(log_format, log_level)
    manager = ServiceManager.take(os.environ, SystemClock())
    options = {"data": data, "listen": listen, "node_id": node_id, "advertise": advertise}
    options |= {"store": store, "cluster": cluster, "rack": rack, "replace": replace}
    where = None if control is None else _address(control)
    work = partial(run_node, manager=manager, control=where)
    return with_settings(work, config_file, overrides, options)


def with_settings(
    work: Callable[[NodeSettings], int],
    config_file: str | None,
    overrides: Mapping[str, str],
    options: Mapping[str, Any],
) -> int:
    """What ``work`` returns for the settings that options of `ottla serve` make; 1 where it says why not."""
    given: ConfigFile | None = None
    properties = dict(overrides)
    try:
        if config_file is not None:
            given = ConfigFile(config_file, _read(config_file))
            properties = given.properties | properties
        store, node_id = options["store"], options["node_id"]
        if store is not None and node_id is None and not properties.keys() & NODE_ID_NAMES:
            raise ConfigError(NODE_ID_MISSING)
        listen, advertise = options["listen"], options["advertise"]
        host, port = _address(listen) if listen else (None, None)
        settings = NodeSettings(
            data=options["data"],
            host=host,
            port=port,
            node_id=node_id,
            advertise=_address(advertise) if advertise else None,
            store=store,
            cluster=options["cluster"] or CLUSTER_DEFAULT,
            rack=options["rack"],
            replace=options["replace"],
            socket=True,
            properties=properties,
        )
        return work(settings)
    except (ConfigError, StartError, StoreError, KafkaError, MissingExtra, OSError, UnicodeError) as error:
        # UnicodeError: a host of a listener that no name can be.
        where = given.where(str(error), overrides) if given and isinstance(error, ConfigError) else ""
        if isinstance(error, ConfigError | StartError):
            for warning in not_known(properties)[:UNKNOWN_MAX]:
                print(line(warning, logging.WARNING), file=sys.stderr)  # noqa: T201 - it may be the cause
        why = line(_reason(error) + where, logging.ERROR)
        print(why, file=sys.stderr)  # noqa: T201 - the one line that says why
        return 1


def _reason(error: Exception) -> str:
    """What went wrong, for people: Python's own words for an OSError begin with a number."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    reason = error.strerror.lower()
    return f"{error.filename}: {reason}" if isinstance(error.filename, str) else reason


def run_node(
    settings: NodeSettings, manager: ServiceManager | None = None, control: tuple[str, int] | None = None
) -> int:
    """Serve in this process until it is asked to stop; its exit code. ``manager`` is told of its state;
    ``control`` is where tests may drive it."""
    told = manager or ServiceManager(SystemClock())
    raise_open_files_max()
    keep_freed_memory()
    collections, alarm = ShortCollections(thread_cpu_ms), Alarm()
    lag = LoopLag(
        SystemClock(),
        thread_cpu_ms,
        thread_delay_ms=ThreadDelays().ms,
        collections=collections,
        alarm=alarm,
    )
    collections.start()
    alarm.start()
    try:
        return run_until_asked(lambda stopping: _serve(settings, lag, told, stopping, control))
    finally:
        alarm.stop()
        collections.stop()


def run_until_asked(main: Callable[[asyncio.Event], Coroutine[Any, Any, int]]) -> int:
    """Run an event loop with ``main``, which is to end once its event is set: at SIGTERM or SIGINT."""
    try:
        return uvloop.run(_with_signals(main))
    finally:
        # Whoever asks again, while Python ends, gets the exit code all the same.
        for signum in STOP_SIGNALS:
            signal.signal(signum, signal.SIG_IGN)


async def _with_signals(main: Callable[[asyncio.Event], Coroutine[Any, Any, int]]) -> int:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()

    def ask_to_stop(*_: object) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(stopping.set)

    for signum in STOP_SIGNALS:
        # Not the loop's own way, which gives signals back their deadly effect as soon as it is closed.
        signal.signal(signum, ask_to_stop)
    return await main(stopping)


async def _serve(
    settings: NodeSettings,
    lag: LoopLag,
    manager: ServiceManager,
    stopping: asyncio.Event,
    where: tuple[str, int] | None,
) -> int:
    # Not before it is needed: a command that runs several nodes as processes is none itself.
    from ottla.node import Node

    control = None if where is None else await _bound_control(where)
    node = Node(settings, lag=lag, faults=None if control is None else control.faults)
    manager.status("starting")
    if not await _start(node, stopping):
        log.info("stopped before it had started")
        return 0
    if control is not None:
        await control.start(node)
        _say(f"control port at {show_address(*control.address)}", control=show_address(*control.address))
    say_ready(node.address, manager)
    await _first(stopping, node.failed)
    if control is not None:
        control.close()
    if node.failed.is_set():
        manager.stopping("the node has failed")
        await node.kill()
        return 1
    log.info("stopping: finishing what is in flight")
    manager.stopping("stopping: clean shutdown")
    await node.stop()
    manager.close()
    log.info("%s", lag)
    log.info("stopped")
    return 0


async def _bound_control(address: tuple[str, int]) -> Control:
    """The control port, whose address is taken. StartError where it cannot be had."""
    # A broker that is not for tests never loads what is for them.
    from ottla.testing.control.server import Control

    control = Control(address, token=os.environ.get(CONTROL_TOKEN) or None)
    await control.bind()
    return control


def say_ready(address: tuple[str, int], manager: ServiceManager) -> None:
    """Print the line that says where we listen, and tell the service manager."""
    listening = f"listening on {show_address(*address)}"
    manager.ready(listening)
    _say(listening, listening=show_address(*address))


def _say(what: str, **fields: str) -> None:
    """Print a line for scripts; ``fields`` are for those that read JSON."""
    try:
        print(line(what, logging.INFO, **fields), flush=True)  # noqa: T201 - what scripts wait for
    except OSError as error:
        # Whoever started us has closed the pipe, or its file is on a full disk: clients need neither.
        log.warning("the line with the address of the broker could not be printed: %s", error)
        # It is still in Python's buffer, whose flush at the very end would fail and spoil the exit code.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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


def _read(config_file: str) -> bytes:
    """What is in a server.properties file. ConfigError: it cannot be read, or is something else."""
    try:
        with open(config_file, "rb") as file:
            data = file.read(CONFIG_FILE_BYTES_MAX + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ConfigError(f"the configuration file {config_file} cannot be read: {reason.lower()}") from error
    if len(data) > CONFIG_FILE_BYTES_MAX:
        raise ConfigError(
            f"the configuration file {config_file} has more than {CONFIG_FILE_BYTES_MAX} bytes: "
            "check that it is the right file"
        )
    return data


def _address(text: str) -> tuple[str, int]:
    """An address that the command has checked."""
    found = parse_address(text)
    assert found is not None, text
    return found
