"""Users' programs under virtual time: asyncio as they know it, clocks and chance of a seed, and refusals."""

from __future__ import annotations

import asyncio
import datetime
import multiprocessing
import os
import platform
import random
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator
from contextvars import ContextVar
from pathlib import Path
from random import Random
from typing import Any

import anyio
import anyio.to_thread
import pytest
import uvloop

from ottla.explore.programs import chance, clocks, current, refusing
from ottla.explore.programs import machine as of_machine
from ottla.explore.programs.loop import ProgramLoop
from ottla.explore.programs.refusing import NotSimulated
from ottla.explore.world.machine import EPOCH_MS, Machine
from ottla.explore.world.network import Fabric
from ottla.explore.world.trace import Trace

CLOCKS = ("time", "monotonic", "perf_counter", "process_time", "thread_time")


class World:
    """Two machines on a loop for programs."""

    def __init__(self, seed: int = 1) -> None:
        self.loop = ProgramLoop()
        self.trace = Trace(self.loop)
        self.fabric = self.loop.fabric = Fabric(self.loop, Random(seed), self.trace)
        self.seed = seed
        self.machines = [
            Machine(self.loop, name, f"10.0.2.{n}") for n, name in enumerate(("shop", "bank"), 1)
        ]
        for machine in self.machines:
            self.fabric.add(machine)

    def run(self, *programs: Callable[[], Coroutine[Any, Any, Any]]) -> list[Any]:
        """The results of the programs, each on a machine of its own."""

        async def main() -> list[Any]:
            tasks = [
                self.loop.spawn(machine.begin(is_program=True), program())
                for machine, program in zip(self.machines, programs, strict=False)
            ]
            return [await task for task in tasks]

        before = chance.begin(self.seed)
        current.enter(self.loop)
        try:
            return self.loop.run(main(), time_max_s=1e6, steps_max=100_000)
        finally:
            current.leave()
            chance.end(before)
            self.loop.close()


# What is put in for a process of its own is taken out again here: other tests are in this process.
REPLACED: list[tuple[Any, str]] = [
    *((time, name) for name in dir(time) if name.removesuffix("_ns") in CLOCKS),
    *((datetime, "datetime"), (datetime, "date"), (os, "urandom"), (random, "Random"), (random, "_urandom")),
    *((owner, name) for owner, name, _ in (*refusing.REPLACED, *of_machine.REPLACED)),
    *((time, name) for name in ("localtime", "gmtime", "ctime", "asctime", "strftime")),
    *((os, "getrandom"), (os, "_exit")),
    *((uuid, "_generate_time_safe"), (time, "clock_gettime"), (time, "clock_gettime_ns")),
]


@pytest.fixture(autouse=True)
def _installed() -> Iterator[None]:
    before = [(owner, name, getattr(owner, name)) for owner, name in REPLACED]
    clocks.install()
    chance.install()
    refusing.install()
    of_machine.install()
    yield
    for owner, name, value in before:
        setattr(owner, name, value)


def test_streams_between_two_programs_by_the_name_of_a_machine() -> None:
    world = World()

    async def bank() -> None:
        process = world.machines[1].process
        assert process is not None
        listener = await world.fabric.network(process).bind(Answering, "", 80)
        await listener.start()

    class Answering(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            self.transport.write(data.upper())

    async def shop() -> bytes:
        while True:
            try:
                reader, writer = await asyncio.open_connection("bank", 80)
            except ConnectionRefusedError:
                continue
            writer.write(b"a pair of shoes\n")
            await writer.drain()
            answer = await reader.readline()
            writer.close()
            await writer.wait_closed()
            return answer

    assert world.run(shop, bank)[0] == b"A PAIR OF SHOES\n"


def test_an_unknown_host_is_no_host() -> None:
    async def shop() -> None:
        await asyncio.open_connection("nowhere", 80)

    with pytest.raises(socket.gaierror, match="nowhere"):
        World().run(shop)


def test_every_clock_is_virtual_inside_and_real_outside() -> None:
    async def shop() -> list[Any]:
        def now() -> list[float]:
            return [time.time(), time.monotonic(), time.perf_counter(), asyncio.get_running_loop().time()]

        before = now()
        await asyncio.sleep(3600)
        day = datetime.datetime.now(datetime.UTC)
        return [[b - a for a, b in zip(before, now(), strict=True)], before[0], day, datetime.date.today()]

    (passed, wall_s, day, today), *_ = World().run(shop)
    assert all(seconds == pytest.approx(3600, abs=0.01) for seconds in passed)
    assert wall_s == pytest.approx(EPOCH_MS / 1000, abs=1)
    assert day.timestamp() == pytest.approx(EPOCH_MS / 1000 + 3600, abs=1)
    assert today == day.astimezone().date()
    assert abs(time.time() - datetime.datetime.now().timestamp()) < 60
    assert time.time() > EPOCH_MS / 1000


def test_what_takes_the_present_takes_that_of_the_run() -> None:
    async def shop() -> list[Any]:
        await asyncio.sleep(86_400)
        return [
            time.mktime(time.localtime()),
            time.clock_gettime(time.CLOCK_REALTIME),
            time.strftime("%Y-%m-%d %H:%M:%S") == datetime.datetime.now().strftime("%Y-%m-%d %H:%M:%S"),
            time.ctime() == time.asctime(),
            time.gmtime(0).tm_year,
            time.clock_gettime(time.CLOCK_MONOTONIC),
            [time.monotonic() for _ in range(100)],
        ]

    local_s, wall_s, is_same, is_told, year, counted_s, looks = World().run(shop)[0]
    assert local_s == pytest.approx(EPOCH_MS / 1000 + 86_400, abs=2)
    assert wall_s == pytest.approx(local_s, abs=2)
    assert is_same and is_told and year == 1970
    assert counted_s == pytest.approx(86_400, abs=1)
    # Two looks are never at the same time.
    assert looks == sorted(set(looks))
    assert abs(time.mktime(time.localtime()) - time.time()) < 2


def test_a_program_is_told_of_its_own_machine_and_process() -> None:
    async def who() -> list[Any]:
        return [
            os.getpid(),
            socket.gethostname(),
            platform.node(),
            os.uname().nodename,
            uuid.getnode(),
            os.cpu_count(),
            uuid.uuid1(),
        ]

    shop, bank = World().run(who, who)
    assert shop[1:4] == ["shop"] * 3 and bank[1:4] == ["bank"] * 3
    assert shop[0] != bank[0] and shop[4] != bank[4]
    assert shop[5] == bank[5] == of_machine.PROCESSORS
    assert World().run(who, who) == [shop, bank]
    assert os.getpid() != shop[0] and socket.gethostname() != "shop"


def test_dates_are_of_their_classes() -> None:
    real = datetime.datetime.fromisoformat("2026-01-31T10:00:00")
    assert isinstance(real, datetime.datetime) and isinstance(real, datetime.date)
    assert not isinstance(real.date(), datetime.datetime)
    assert isinstance(real.date(), datetime.date)
    assert issubclass(datetime.datetime, datetime.date)


async def _draws() -> list[Any]:
    generator = random.Random()
    return [
        random.random(),
        generator.random(),
        uuid.uuid4(),
        os.urandom(4),
        os.getrandom(4),
        secrets.token_hex(4),
        random.SystemRandom().random(),
    ]


def test_chance_is_of_the_seed() -> None:
    (one,), (again,), (other,) = (World(seed).run(_draws) for seed in (7, 7, 8))
    assert one == again
    assert all(a != b for a, b in zip(one, other, strict=True))


def test_outside_chance_is_real_and_goes_on_where_it_was() -> None:
    random.seed(5)
    expected = random.Random(5)
    random.random()
    expected.random()
    World().run(_draws)
    assert random.random() == expected.random()
    assert os.urandom(16) != os.urandom(16)


def _thread() -> None:
    threading.Thread(target=print).start()


async def _awaited(work: Callable[[], Any]) -> None:
    await work()


def _of(owner: Any, name: str, *arguments: Any) -> Callable[[], Any]:
    """Looked up when it is called: until then it may be replaced."""

    def call() -> None:
        getattr(owner, name)(*arguments)

    return call


def _of_loop(name: str, *arguments: Any) -> Callable[[], Any]:
    return lambda: getattr(asyncio.get_running_loop(), name)(*arguments)


async def _nothing() -> None:
    """A coroutine to be given to whoever runs some."""


def _run(owner: Any, name: str = "run") -> Callable[[], Any]:
    def run() -> None:
        coroutine = _nothing()
        try:
            getattr(owner() if callable(owner) else owner, name)(coroutine)
        finally:
            coroutine.close()

    return run


@pytest.mark.parametrize(
    ("action", "remedy"),
    [
        (_thread, "asyncio tasks"),
        (lambda: time.sleep(1), "asyncio.sleep"),
        (socket.socket, "asyncio's streams"),
        (lambda: socket.create_connection(("127.0.0.1", 9)), "asyncio's streams"),
        (lambda: socket.create_connection(("bank", 9)), "asyncio's streams"),
        (_of(socket, "getaddrinfo", "bank", 9), "getaddrinfo"),
        (_of(socket, "gethostbyname", "bank"), "getaddrinfo"),
        (_of(socket, "gethostbyname_ex", "bank"), "getaddrinfo"),
        (_of(socket, "gethostbyaddr", "10.0.2.2"), "getaddrinfo"),
        (_of(socket, "getnameinfo", ("10.0.2.2", 9), 0), "getaddrinfo"),
        (lambda: subprocess.run(["true"], check=True), "world.program"),
        (lambda: os.system("true"), "world.program"),
        (_of(os, "fork"), "world.program"),
        (lambda: os.execv("/bin/true", ["true"]), "world.program"),
        (lambda: multiprocessing.get_context("spawn").Process(target=print).start(), "world.program"),
        (_of(os, "abort"), "raise SystemExit"),
        (lambda: os.kill(os.getpid(), 0), "program-kill"),
        (lambda: signal.raise_signal(signal.SIGTERM), "program-kill"),
        (lambda: signal.alarm(1), "call_later"),
        (_run(asyncio), "await the coroutine"),
        (_run(asyncio.Runner), "await the coroutine"),
        (_run(uvloop), "await the coroutine"),
        (_of(asyncio, "new_event_loop"), "await the coroutine"),
        (_run(asyncio.get_running_loop, "run_until_complete"), "await the coroutine"),
        (_of_loop("run_forever"), "await the coroutine"),
        (_of_loop("stop"), "await the coroutine"),
        (_of_loop("close"), "await the coroutine"),
        (_of_loop("add_reader", 0, print), "asyncio's streams"),
        (_of_loop("remove_writer", 0), "asyncio's streams"),
        (_of_loop("set_task_factory", print), "task factory"),
    ],
)
def test_what_cannot_be_simulated_is_refused_with_its_line(action: Callable[[], Any], remedy: str) -> None:
    async def shop() -> None:
        action()

    with pytest.raises(NotSimulated) as refused:
        World().run(shop)
    assert f"{__file__}:" in str(refused.value)
    assert remedy in str(refused.value)
    # Outside nothing is refused.
    with socket.socket():
        pass


@pytest.mark.parametrize(
    ("action", "remedy"),
    [
        (lambda: asyncio.open_connection("bank", 80, ssl=True), "plain connections"),
        (lambda: asyncio.start_server(print, port=80, ssl=object()), "plain connections"),
        (lambda: asyncio.open_connection(sock=object()), "asyncio's streams"),
        (lambda: asyncio.start_server(print, sock=object()), "asyncio's streams"),
        (lambda: asyncio.open_unix_connection("/nowhere"), "a host and a port"),
        (lambda: asyncio.start_unix_server(print, "/nowhere"), "a host and a port"),
        (lambda: asyncio.create_subprocess_exec("true"), "world.program"),
        (lambda: asyncio.create_subprocess_shell("true"), "world.program"),
        (_of_loop("create_datagram_endpoint", asyncio.DatagramProtocol), "use connections"),
        (_of_loop("connect_read_pipe", asyncio.Protocol, None), "queues"),
        (_of_loop("start_tls", None, None, None), "plain connections"),
        (_of_loop("sock_connect", None, ("bank", 80)), "asyncio's streams"),
        (_of_loop("sock_recv", None, 1), "asyncio's streams"),
        (lambda: asyncio.to_thread(lambda: time.sleep(1)), "asyncio.sleep"),
    ],
)
def test_what_cannot_be_awaited_is_refused_with_its_line(action: Callable[[], Any], remedy: str) -> None:
    with pytest.raises(NotSimulated, match=remedy) as refused:
        World().run(lambda: _awaited(action))
    assert f"{__file__}:" in str(refused.value)


def test_a_line_of_a_package_comes_after_that_of_the_user() -> None:
    async def shop() -> None:
        await anyio.to_thread.run_sync(print)

    with pytest.raises(NotSimulated) as refused:
        World().run(shop)
    said = str(refused.value)
    assert said.startswith(f"{__file__}:") and f"{os.sep}anyio{os.sep}" in said.partition(" (by ")[2]


def test_files_and_what_belongs_to_asyncio_and_anyio_work(tmp_path: Path) -> None:
    name: ContextVar[str] = ContextVar("name", default="none")

    async def shop() -> list[Any]:
        found: list[Any] = []
        (tmp_path / "file").write_text("kept")
        found.append((tmp_path / "file").read_text())
        name.set("shop")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(10):
                await asyncio.sleep(20)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(asyncio.sleep(5, name.get()))
        found.append(task.result())
        with pytest.raises(BaseExceptionGroup):
            async with asyncio.TaskGroup() as group:
                group.create_task(_awaited(lambda: asyncio.open_connection("nowhere", 1)))
        with anyio.move_on_after(3) as scope:
            await anyio.sleep_forever()
        found.append(scope.cancelled_caught)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.sleep, 1)
        uvloop.install() if sys.version_info < (3, 12) else None
        asyncio.get_running_loop().set_task_factory(None)
        # Frameworks do: it is never called.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, found.clear)
        found.append(asyncio.get_running_loop().time())
        return found

    before = asyncio.get_event_loop_policy() if sys.version_info < (3, 12) else None
    try:
        kept, named, is_cancelled, time_s = World().run(shop)[0]
    finally:
        if before is not None:
            asyncio.set_event_loop_policy(before)
    assert (kept, named, is_cancelled) == ("kept", "shop", True)
    assert 19 <= time_s < 19.1


def test_programs_serve_each_other_with_asyncios_servers() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        name, _ = await asyncio.get_running_loop().getnameinfo(writer.get_extra_info("peername"))
        writer.write(b"hello " + await reader.readline() + name.encode())
        writer.close()

    async def bank() -> int:
        server = await asyncio.start_server(answer, "0.0.0.0", 80)
        with pytest.raises(OSError, match="in use"):
            await asyncio.start_server(answer, port=80)
        other = await asyncio.start_server(answer, port=0, start_serving=False)
        assert server.is_serving() and not other.is_serving()
        assert server.sockets[0].getsockname() == ("10.0.2.2", 80)
        _own, _ = await asyncio.open_connection("localhost", 80)
        task = asyncio.create_task(server.serve_forever())
        await asyncio.sleep(5)
        task.cancel()
        await server.wait_closed()
        assert server.sockets == ()
        return other.sockets[0].getsockname()[1]

    async def shop() -> list[bytes]:
        await asyncio.sleep(1)
        reader, writer = await asyncio.open_connection("bank", 80)
        writer.write(b"world\n")
        lines = [await reader.readline(), await reader.read()]
        await asyncio.sleep(10)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("bank", 80)
        return lines

    lines, port = World().run(shop, bank)
    assert lines == [b"hello world\n", b"shop"]
    assert port > 1024


def test_work_in_an_executor_is_done_in_a_step_of_its_own() -> None:
    order: list[str] = []

    async def shop() -> int:
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(None, lambda: order.append("work") or 5)
        order.append("asked")
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 // 0)
        return await future

    assert World().run(shop)[0] == 5
    assert order == ["asked", "work"]


def test_a_program_that_looks_at_the_clock_until_it_has_moved_comes_to_an_end() -> None:
    async def shop() -> int:
        deadline_s, looks = time.monotonic() + 0.001, 0
        while time.monotonic() < deadline_s:
            looks += 1
            await asyncio.sleep(0)
        return looks

    assert 0 < World().run(shop)[0] <= 1001


@pytest.mark.parametrize("delay_s", [0.1, 0.3, 1 / 3, 1e-7, 0.0000015, 12345.678])
def test_a_timer_is_never_early(delay_s: float) -> None:
    async def shop() -> float:
        begun_s = time.monotonic()
        await asyncio.sleep(delay_s)
        return time.monotonic() - begun_s

    slept_s = World().run(shop)[0]
    assert delay_s - 1e-9 <= slept_s < delay_s + 0.001
