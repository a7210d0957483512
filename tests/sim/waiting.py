"""Programs that wait in threads, as Python's library offers it, explored by `test_threads.py`."""

from __future__ import annotations

import asyncio
import atexit
import queue
import selectors
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ottla.explore import World, explore


def sleeping() -> float:
    begun_s = time.monotonic()
    time.sleep(3600)
    return time.monotonic() - begun_s


def queues() -> list[int]:
    """A queue of two places, so that both sides wait."""
    numbers: queue.Queue[int | None] = queue.Queue(2)
    found = []

    def take() -> None:
        while (number := numbers.get()) is not None:
            found.append(number)
            time.sleep(0.1)

    taker = threading.Thread(target=take)
    taker.start()
    for number in range(10):
        numbers.put(number)
    numbers.put(None)
    taker.join()
    assert not taker.is_alive()
    return found


def locks() -> list[str]:
    order: list[str] = []
    lock, ready = threading.Lock(), threading.Event()

    def work(name: str) -> None:
        ready.wait()
        with lock:
            order.append(f"{name} begins")
            time.sleep(1)
            order.append(f"{name} ends")

    threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    assert not ready.wait(0.5)
    ready.set()
    with lock:
        assert not lock.acquire(blocking=False)
        order.append("main has it")
        assert not lock.acquire(timeout=0.2)
    for thread in threads:
        thread.join()
    return order


def condition() -> list[int]:
    """Reentrant locks, conditions, and what is a thread's own."""
    turn, own, found = threading.Condition(), threading.local(), []

    def work(number: int) -> None:
        own.number = number
        with turn, turn:
            turn.wait_for(lambda: len(found) == number)
            found.append(own.number)
            turn.notify_all()

    threads = [threading.Thread(target=work, args=(number,), name=f"t{number}") for number in (2, 1, 0)]
    for thread in threads:
        thread.start()
    assert {"t0", "t1", "t2"} <= {thread.name for thread in threading.enumerate()}
    for thread in threads:
        thread.join()
    assert not hasattr(own, "number")
    assert threading.current_thread() is threading.main_thread()
    return found


def pool() -> list[int]:
    def work(number: int) -> int:
        time.sleep(1)
        return number * number

    begun_s = time.monotonic()
    with ThreadPoolExecutor(4) as executor:
        found = list(executor.map(work, range(8)))
    assert 2 <= time.monotonic() - begun_s < 2.5
    return found


def at_its_end(told: list[str]) -> None:
    """Python waits for threads that are no daemons, and calls what is registered."""
    atexit.register(told.append, "at exit")

    def last() -> None:
        time.sleep(5)
        told.append("thread")

    threading.Thread(target=last).start()
    threading.Thread(target=time.sleep, args=(10**6,), daemon=True).start()
    told.append("main")


async def answering() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.readline()).upper() * 20_000)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, port=80) as server:
        assert server.sockets[0].getsockname()[1] == 80
        await server.serve_forever()


def asking() -> int:
    """A socket that waits, and one that does not, with a selector."""
    time.sleep(1)
    with socket.create_connection(("answering", 80), timeout=10) as connection:
        assert socket.gethostbyname("answering") == connection.getpeername()[0]
        connection.sendall(b"hello\n")
        whole = b""
        while data := connection.recv(4096):
            whole += data
    assert whole == b"HELLO\n" * 20_000
    with socket.socket() as other, selectors.DefaultSelector() as selector:
        other.setblocking(False)
        assert other.connect_ex(("answering", 80)) != 0
        selector.register(other, selectors.EVENT_WRITE)
        assert selector.select(10)
        assert other.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        assert other.send(b"hello\n") == 6
        selector.modify(other, selectors.EVENT_READ)
        (found,) = selector.select(10)
        assert found[0].fileobj is other
        assert other.recv(5) == b"HELLO"
    try:
        socket.create_connection(("answering", 81), timeout=10)
    except ConnectionRefusedError:
        return len(whole)
    raise AssertionError("nobody listens there")


def running_asyncio() -> str:
    """A main function as most write it."""

    async def main() -> str:
        await asyncio.sleep(10)
        return await asyncio.to_thread(lambda: time.sleep(10) or "done")

    return asyncio.run(main())


async def both() -> list[Any]:
    """Coroutines that have threads do what waits."""
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1) as executor:
        began_s = loop.time()
        waits = [loop.run_in_executor(executor, time.sleep, 1), asyncio.to_thread(time.sleep, 1)]
        await asyncio.gather(*waits)
        took_s = loop.time() - began_s
    heard: asyncio.Queue[str] = asyncio.Queue()
    threading.Thread(target=lambda: loop.call_soon_threadsafe(heard.put_nowait, "heard")).start()
    answer = await heard.get()

    async def add() -> int:
        return 5

    asked = await asyncio.to_thread(lambda: asyncio.run_coroutine_threadsafe(add(), loop).result(10))
    return [1 <= took_s < 1.1, answer, asked]


@explore(faults="calm", nodes=1)
async def all_of_it(world: World) -> None:
    told: list[str] = []
    mains: dict[str, tuple[Callable[..., Any], Any]] = {
        "queues": (queues, list(range(10))),
        "locks": (locks, ["main has it", "a begins", "a ends", "b begins", "b ends"]),
        "condition": (condition, [0, 1, 2]),
        "pool": (pool, [n * n for n in range(8)]),
        "asking": (asking, 120_000),
        "running": (running_asyncio, "done"),
        "both": (both, [True, "heard", 5]),
    }
    world.program("answering", answering, restarts=True)
    programs = {name: world.program(name, main) for name, (main, _) in mains.items()}
    sleeper = world.program("sleeping", sleeping)
    world.program("ending", at_its_end, told)
    await world.run(60)
    assert {name: program.result for name, program in programs.items()} == {
        name: expected for name, (_, expected) in mains.items()
    }
    assert told == ["main", "thread", "at exit"]
    assert not sleeper.done
    await world.run(3600)
    assert 3600 <= sleeper.result < 3600.1


def counting(seen: list[float], cleaned: list[str]) -> None:
    try:
        while True:
            time.sleep(1)
            seen.append(time.monotonic())
    finally:
        cleaned.append("never, where a program is killed")


@explore(faults={"program-kill": 1, "program-pause": 1}, nodes=1)
async def killed_and_paused(world: World) -> None:
    seen: list[float] = []
    cleaned: list[str] = []
    program = world.program("counting", counting, seen, cleaned, restarts=True)
    await world.run(100)
    assert program.starts > 3
    assert 10 < len(seen) < 95
    assert seen == sorted(seen) and not cleaned


async def holding(what: Callable[[], Any]) -> None:
    what()


def _contended() -> None:
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


def _joined() -> None:
    thread = threading.Thread(target=time.sleep, args=(1,))
    thread.start()
    thread.join()


def _empty() -> None:
    queue.Queue[int]().get(timeout=5)


def _asleep() -> None:
    time.sleep(1)


def _connecting() -> None:
    socket.create_connection(("n1", 9092), timeout=5)


async def refused(world: World, what: Callable[[], Any]) -> None:
    world.program("holding", holding, what, restarts=True)
    await world.run(5)


@explore(faults="calm", nodes=1)
async def a_lock_in_a_coroutine(world: World) -> None:
    await refused(world, _contended)


@explore(faults="calm", nodes=1)
async def a_thread_in_a_coroutine(world: World) -> None:
    await refused(world, _joined)


@explore(faults="calm", nodes=1)
async def a_queue_in_a_coroutine(world: World) -> None:
    await refused(world, _empty)


@explore(faults="calm", nodes=1)
async def a_sleep_in_a_coroutine(world: World) -> None:
    await refused(world, _asleep)


@explore(faults="calm", nodes=1)
async def a_connection_by_name_in_a_coroutine(world: World) -> None:
    await refused(world, _connecting)
