"""Programs that leave the simulation by libraries in C, explored by `test_outside.py`."""

from __future__ import annotations

import ctypes
import importlib
import socket
import sys
from collections.abc import Callable
from typing import Any

import confluent_kafka
from confluent_kafka.admin import AdminClient
from confluent_kafka.aio import AIOConsumer, AIOProducer

from ottla.explore import World, explore

NOWHERE = {"bootstrap.servers": "127.0.0.1:9", "group.id": "shop", "socket.timeout.ms": 1000}
# Nobody asks it anything while the file is imported.
MADE = confluent_kafka.Producer({"bootstrap.servers": "127.0.0.1:9"})


async def _run(world: World, make: Callable[[], Any]) -> None:
    async def shop() -> None:
        make()

    world.program("shop", shop, restarts=True)
    await world.run(2)


@explore(faults="calm", nodes=1)
async def consumer(world: World) -> None:
    await _run(world, lambda: confluent_kafka.Consumer(NOWHERE).poll(0.1))


@explore(faults="calm", nodes=1)
async def producer(world: World) -> None:
    await _run(world, lambda: confluent_kafka.SerializingProducer(NOWHERE))


@explore(faults="calm", nodes=1)
async def admin(world: World) -> None:
    await _run(world, lambda: AdminClient(NOWHERE))


@explore(faults="calm", nodes=1)
async def asynchronous(world: World) -> None:
    await _run(world, lambda: AIOProducer(NOWHERE))


@explore(faults="calm", nodes=1)
async def asynchronous_consumer(world: World) -> None:
    await _run(world, lambda: AIOConsumer(NOWHERE))


@explore(faults="calm", nodes=1)
async def made_before(world: World) -> None:
    await _run(world, lambda: MADE.produce("orders", b"shoes"))


@explore(faults="calm", nodes=1)
async def by_the_test(world: World) -> None:
    confluent_kafka.Producer(NOWHERE)


@explore(faults="calm", nodes=1)
async def imported(world: World) -> None:
    """What is no client is served."""
    assert confluent_kafka.TopicPartition("orders", 3).partition == 3
    await world.run(1)


def _thread_in_c() -> None:
    """It does nothing, as one does that waits for something to compute."""
    libc = ctypes.CDLL(None)
    thread = ctypes.c_ulong()
    assert libc.pthread_create(ctypes.byref(thread), None, libc.pause, None) == 0


def _socket_in_c() -> None:
    assert ctypes.CDLL(None).socket(int(socket.AF_INET), int(socket.SOCK_STREAM), 0) > 0


def _talks() -> None:
    _thread_in_c()
    _socket_in_c()


@explore(faults="calm", nodes=1)
async def talks(world: World) -> None:
    await _run(world, _talks)


@explore(faults="calm", nodes=1)
async def talks_at_the_end(world: World) -> None:
    await world.run(1)
    _talks()


@explore(faults="calm", nodes=1)
async def talks_while_all_settles(world: World) -> None:
    async def shop() -> None:
        _talks()

    world.program("shop", shop)
    await world.settle(1)


@explore(faults="calm", nodes=1)
async def computes(world: World) -> None:
    await _run(world, _thread_in_c)


@explore(faults="calm", nodes=1)
async def opens(world: World) -> None:
    await _run(world, _socket_in_c)


@explore(faults="calm", nodes=1)
async def imports_what_tries(world: World) -> None:
    """urllib3 opens a socket when it is imported, to see whether there is IPv6."""
    folder = world.directory("shop") / "site-packages"
    text = "import socket\ntry:\n    socket.socket()\nexcept RuntimeError as error:\n    SAID = str(error)\n"

    async def shop() -> None:
        folder.mkdir()
        (folder / "trying.py").write_text(text)
        sys.path.insert(0, str(folder))
        trying = importlib.import_module("trying")
        assert "trying.py:3" in trying.SAID

    world.program("shop", shop)
    await world.settle(1)
