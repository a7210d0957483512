"""The loop of a run with users' programs: what asyncio programs ask of a loop, served in virtual time.

What cannot be served is refused with the line that asked, and what to use instead.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from typing import Any, NoReturn

from ottla.explore.programs import current, refusing
from ottla.explore.programs.refusing import refused
from ottla.explore.programs.server import Server
from ottla.explore.world.loop import CURRENT, SECOND_US, Process, VirtualLoop
from ottla.explore.world.network import Fabric

Factory = Callable[[], asyncio.BaseProtocol]
# Each step takes so long, so that a program which looks at the clock until it has moved comes to an end.
STEP_US = 1
# A timer that is infinitely far away, and any as far as this, comes after the end of every run.
NEVER_S = 1e9


class ProgramLoop(VirtualLoop):
    """A virtual loop on which programs connect over ``fabric``, by names or addresses of its machines."""

    creep_us = STEP_US

    def __init__(self) -> None:
        super().__init__()
        self.fabric: Fabric | None = None
        self._handler: Callable[[asyncio.AbstractEventLoop, dict[str, Any]], object] | None = None

    def us(self, seconds: float) -> int:
        """Rounded up: a program whose timer came early would find its time not reached, and ask again."""
        exact_us = (NEVER_S if seconds > NEVER_S else seconds) * SECOND_US
        nearest_us = round(exact_us)
        # A float that was meant to be whole is off by less than this.
        return nearest_us if nearest_us >= exact_us - 1e-3 else nearest_us + 1

    # ------------------------------------------------------------ network

    def _network(self) -> tuple[Fabric, Process]:
        process = CURRENT.get()
        if self.fabric is None or process is None:
            raise refused("only a program of the world has a network: start it with `world.program()`")
        return self.fabric, process

    def _host(self, fabric: Fabric, name: str | None, own: str) -> str:
        """The address of a machine by its name or address. OSError where there is none."""
        if name in (None, "", "localhost", "127.0.0.1", "0.0.0.0", own):
            return own
        if name in fabric.machines:
            return name
        for machine in fabric.machines.values():
            if machine.name == name:
                return machine.host
        raise socket.gaierror(socket.EAI_NONAME, f"Name or service not known: {name}")

    async def create_connection(  # type: ignore[override]
        self,
        protocol_factory: Factory,
        host: str | None = None,
        port: int | None = None,
        *,
        ssl: Any = None,
        sock: Any = None,
        **_options: Any,
    ) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
        """As asyncio's, over the simulated network. NotSimulated for TLS and for a socket that is there."""
        if ssl:
            raise refused(refusing.TLS)
        if sock is not None or host is None or port is None:
            raise refused(refusing.SOCKET)
        fabric, process = self._network()
        made = []

        def factory() -> asyncio.BaseProtocol:
            made.append(protocol_factory())
            return made[0]

        network = fabric.network(process)
        transport = await network.open(factory, self._host(fabric, host, process.machine.host), port)
        return transport, made[0]

    async def getaddrinfo(
        self, host: Any, port: Any, *, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> list[tuple[Any, ...]]:
        """The one address of a machine. socket.gaierror where there is none of the name."""
        return self.addresses(host, port, type, proto)

    def addresses(self, host: Any, port: Any, type: int = 0, proto: int = 0) -> list[tuple[Any, ...]]:
        """What ``getaddrinfo`` answers."""
        fabric, process = self._network()
        address = self._host(fabric, host.decode() if isinstance(host, bytes) else host, process.machine.host)
        kind = type or socket.SOCK_STREAM
        return [(socket.AF_INET, kind, proto or socket.IPPROTO_TCP, "", (address, int(port or 0)))]

    async def getnameinfo(self, sockaddr: Any, flags: int = 0) -> tuple[str, str]:
        """The name of the machine with an address, or the address itself."""
        fabric, _ = self._network()
        machine = fabric.machines.get(sockaddr[0])
        named = machine is not None and not flags & socket.NI_NUMERICHOST
        return (machine.name if named and machine is not None else sockaddr[0]), str(sockaddr[1])

    async def create_server(  # type: ignore[override]
        self,
        protocol_factory: Factory,
        host: Any = None,
        port: int | None = None,
        *,
        ssl: Any = None,
        sock: Any = None,
        start_serving: bool = True,
        **_options: Any,
    ) -> Server:
        """As asyncio's, at the address of the program's machine; others connect to it by the program's name.

        ``host`` is not looked at, since a machine has one address. OSError where the port is taken.
        """
        if ssl:
            raise refused(refusing.TLS)
        if sock is not None:
            raise refused(refusing.SOCKET)
        fabric, process = self._network()
        listener = await fabric.network(process).bind(protocol_factory, "", port or 0)
        server = Server(self, listener)
        if start_serving:
            await server.start_serving()
        return server

    # ------------------------------------------------------------ blocking work

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Do the work in a simulated thread. Without these, in a step of its own: it may not wait then."""
        if current.threads:
            if isinstance(executor, Executor):
                return asyncio.wrap_future(executor.submit(func, *args), loop=self)
            from ottla.explore.programs.threads import start

            return start(partial(func, *args), "asyncio")
        future = self.create_future()

        def work() -> None:
            if future.cancelled():
                return
            try:
                result = func(*args)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:  # noqa: BLE001 - whoever awaits it gets it
                future.set_exception(error)
            else:
                future.set_result(result)

        self.call_soon(work)
        return future

    def set_default_executor(self, executor: Any) -> None:
        """Taken, and not used: see ``run_in_executor``."""

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """There is none."""

    async def shutdown_asyncgens(self) -> None:
        """They end with their process."""

    # ------------------------------------------------------------ the rest of asyncio's side

    def set_debug(self, enabled: bool) -> None:
        """Taken, and not used."""

    def get_exception_handler(self) -> Any:
        return self._handler

    def set_exception_handler(self, handler: Any) -> None:
        self._handler = handler

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        super().call_exception_handler(context)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if self._handler is None:
            super().call_exception_handler(context)
        else:
            self._handler(self, context)

    def add_signal_handler(  # type: ignore[override]
        self, sig: int, callback: Callable[..., object], *args: Any
    ) -> None:
        """Taken, and never called: programs of a run are killed, not asked to end."""

    def remove_signal_handler(self, sig: int) -> bool:
        return False

    # ------------------------------------------------------------ what is refused

    def get_task_factory(self) -> None:
        """None: asyncio's own tasks."""

    def set_task_factory(self, factory: Any) -> None:
        if factory is not None:
            raise refused(refusing.FACTORY)

    def close(self) -> None:
        """At the end of the run. NotSimulated in a program."""
        if current.program() is not None:
            raise refused(refusing.LOOP)
        super().close()


def _refusing(reason: str, *, is_async: bool = True) -> Any:
    """A method that refuses when it is called, or when it is awaited."""

    async def refuse_awaited(self: ProgramLoop, *_arguments: Any, **_named: Any) -> NoReturn:
        raise refused(reason)

    def refuse(self: ProgramLoop, *_arguments: Any, **_named: Any) -> NoReturn:
        raise refused(reason)

    return refuse_awaited if is_async else refuse


for _reason, _is_async, _names in (
    (refusing.TLS, True, "start_tls"),
    (refusing.UNIX, True, "create_unix_connection create_unix_server"),
    (refusing.DATAGRAM, True, "create_datagram_endpoint"),
    (refusing.PIPE, True, "connect_read_pipe connect_write_pipe"),
    (refusing.PROCESS, True, "subprocess_exec subprocess_shell"),
    (
        refusing.SOCKET,
        True,
        "connect_accepted_socket sendfile sock_accept sock_connect sock_recv sock_recv_into",
    ),
    (refusing.SOCKET, True, "sock_recvfrom sock_recvfrom_into sock_sendall sock_sendfile sock_sendto"),
    (refusing.SOCKET, False, "add_reader add_writer remove_reader remove_writer"),
    (refusing.LOOP, False, "run_forever run_until_complete stop"),
):
    for _name in _names.split():
        setattr(ProgramLoop, _name, _refusing(_reason, is_async=_is_async))
