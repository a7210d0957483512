"""One end of a simulated connection as an asyncio transport, and the pipe that leads to the other end."""

from __future__ import annotations

import asyncio
import errno
from collections import deque
from collections.abc import Callable, Iterable
from random import Random
from typing import Any, Protocol

from ottla.explore.world.loop import WORLD, Handle, Process, VirtualLoop
from ottla.explore.world.machine import Machine
from ottla.explore.world.trace import Trace

# asyncio's limits for what is buffered before a protocol is told to pause.
HIGH_WATER, LOW_WATER = 64 << 10, 16 << 10


class Signal:
    """What travels on a connection beside bytes."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


FIN, RESET = Signal("FIN"), Signal("RESET")
Item = bytes | Signal


class Link:
    """The way from one host to another."""

    __slots__ = ("base_us", "blocked", "jitter_us", "slow_us", "split")

    def __init__(self, base_us: int, jitter_us: int, split: float) -> None:
        self.base_us = base_us
        self.jitter_us = jitter_us
        # How often what is written arrives in pieces.
        self.split = split
        self.blocked = False
        # More latency, while a fault lasts.
        self.slow_us = 0


class Tap(Protocol):
    """Who is told what ends of connections write and read; it changes nothing of it."""

    def written(self, end: SimTransport, data: bytes) -> None:
        """A process has written something, whatever becomes of it."""
        ...

    def taken(self, end: SimTransport, count: int) -> None:
        """A process has got so many more bytes of what the other end has written."""
        ...

    def closed(self, end: SimTransport) -> None: ...


class Medium(Protocol):
    """What connects hosts, as the ends of connections see it (``ottla.explore.world.network.Fabric``)."""

    loop: VirtualLoop
    rng: Random
    trace: Trace
    machines: dict[str, Machine]
    transports: dict[SimTransport, None]
    stalled: dict[Pipe, None]
    # How much longer than usual what an end writes is under way, in microseconds.
    delay_us: Callable[[SimTransport, bytes], int] | None
    tap: Tap | None

    def link(self, source: str, target: str) -> Link: ...

    def latency_us(self, link: Link) -> int: ...

    def window(self) -> int: ...

    def give_up_us(self) -> int: ...


class Pipe:
    """One direction of a connection: what is under way, in order."""

    __slots__ = (
        "_ack_timer",
        "_fabric",
        "_flight",
        "_last_us",
        "_timer",
        "back",
        "host",
        "link",
        "lossy",
        "source",
        "stalled",
        "stalled_us",
        "target",
        "unread",
        "window",
    )

    def __init__(self, fabric: Medium, source: SimTransport, target: SimTransport) -> None:
        self._fabric = fabric
        self.source = source
        self.target = target
        self.host = target.address[0]
        self.link: Link = fabric.link(source.address[0], self.host)
        # The way of acknowledgements, which ``SimTransport.join`` sets.
        self.back: Link
        self.window = fabric.window()
        # Bytes that were sent and not read yet.
        self.unread = 0
        # Everything that is sent from now on gets lost.
        self.lossy = False
        self.stalled = False
        self.stalled_us = 0
        self._flight: deque[Item] = deque()
        # When the last thing that was sent arrives.
        self._last_us = 0
        self._timer: Handle | None = None
        self._ack_timer: Handle | None = None

    def is_open(self) -> bool:
        """Whether what is sent now arrives."""
        return not self.lossy and not self.link.blocked and self._fabric.machines[self.host].up

    def send(self, item: Item, delay_us: int = 0) -> None:
        """Have something arrive behind all that was sent before, ``delay_us`` later than it would."""
        self._flight.append(item)
        if type(item) is bytes:
            self.unread += len(item)
        if self.stalled:
            return
        fabric = self._fabric
        arrives_us = fabric.loop.now_us + fabric.latency_us(self.link) + delay_us
        if arrives_us > self._last_us:
            self._last_us = arrives_us
        fabric.loop.timer(self._last_us, self._arrive, (), WORLD)

    def _arrive(self) -> None:
        if self.stalled or not self._flight:
            return
        if not self.is_open():
            self._stall()
            return
        if self.back.blocked and self._ack_timer is None:
            loop = self._fabric.loop
            self._ack_timer = loop.call_at_us(
                loop.now_us + self._fabric.give_up_us(), self._check_acks, context=WORLD
            )
        self.target.arrive(self._flight.popleft())

    def _check_acks(self) -> None:
        """What has arrived was not acknowledged for long: to its sender it is as if it had not arrived."""
        self._ack_timer = None
        if self.back.blocked:
            self.clear()
            self.source.fail(TimeoutError(errno.ETIMEDOUT, "Connection timed out"))

    def _stall(self) -> None:
        fabric = self._fabric
        self.stalled = True
        self.stalled_us = fabric.loop.now_us
        fabric.stalled[self] = None
        self._timer = fabric.loop.call_at_us(
            self.stalled_us + fabric.give_up_us(), self._give_up, context=WORLD
        )

    def resume(self) -> None:
        """Send again what waited, if it still waits and its way is open."""
        if not self.stalled or not self.is_open():
            return
        self._unstall()
        while self._flight:
            self.target.arrive(self._flight.popleft())

    def _unstall(self) -> None:
        self.stalled = False
        self._fabric.stalled.pop(self, None)
        if self._timer is not None:
            self._timer.cancel()

    def _give_up(self) -> None:
        """The sender's kernel has tried for long enough."""
        if self.stalled:
            self.clear()
            self.source.fail(TimeoutError(errno.ETIMEDOUT, "Connection timed out"))

    def clear(self) -> None:
        """What is under way is lost."""
        self._unstall()
        self._flight.clear()

    def read(self, count: int) -> None:
        """The other end has taken so many bytes."""
        was_full = self.unread >= self.window
        self.unread -= count
        if self.source.backlog and was_full:
            fabric = self._fabric
            back_us = fabric.latency_us(self.back)
            fabric.loop.call_at_us(
                fabric.loop.now_us + back_us,
                fabric.loop.hand_over,
                self.source.process,
                self.source,
                self.source.flush,
                context=WORLD,
            )


class SimTransport(asyncio.Transport):
    """A socket. Its protocol's methods run as part of its process."""

    def __init__(self, fabric: Medium, process: Process, address: tuple[str, int]) -> None:
        super().__init__()
        self.process = process
        self.address = address
        self.peer: SimTransport
        self.out: Pipe
        # What was written beyond what the kernel takes.
        self.backlog: deque[bytes] = deque()
        # The socket is closed for the process; and for the kernel: it knows nothing of the connection.
        self.closed = False
        self.gone = False
        self._fabric = fabric
        self._name = f"{address[0]}:{address[1]}"
        self._factory: Callable[[], asyncio.BaseProtocol] | None = None
        self._protocol: Any = None
        self._buffered = False
        self._backlog_bytes = 0
        self._inbox: deque[Item] = deque()
        self._closing = False
        self._paused_reading = False
        self._paused_writing = False
        self._reset = False

    def __repr__(self) -> str:
        return self._name

    def join(self, far: SimTransport) -> None:
        """Become the two ends of one connection."""
        self.peer, far.peer = far, self
        self.out, far.out = Pipe(self._fabric, self, far), Pipe(self._fabric, far, self)
        self.out.back, far.out.back = far.out.link, self.out.link
        self._fabric.transports[self] = None
        self._fabric.transports[far] = None

    def accept(self, factory: Callable[[], asyncio.BaseProtocol]) -> None:
        """The listening side: the protocol is made as soon as the process gets to it."""
        self._factory = factory
        self._fabric.loop.call_soon(self._drain, context=self.process.context)

    def begin(self, factory: Callable[[], asyncio.BaseProtocol]) -> None:
        """The process takes the connection, and what has arrived by now."""
        self._factory = None
        self._protocol = factory()
        self._buffered = isinstance(self._protocol, asyncio.BufferedProtocol)
        self._protocol.connection_made(self)
        if self._inbox:
            self._fabric.loop.call_soon(self._drain, context=self.process.context)

    # ------------------------------------------------------------ the network's side

    def arrive(self, item: Item) -> None:
        """The kernel gets the next thing from the other end."""
        what = f"< {len(item)}" if isinstance(item, bytes) else f"< {item!r}"
        self._fabric.trace.moved(self._name, what)
        if self.gone or self.closed:
            if not self._reset and (type(item) is bytes or (item is FIN and self.gone)):
                # A host that knows nothing of a connection says so.
                self._reset = True
                self.out.send(RESET)
            return
        self._inbox.append(item)
        self._fabric.loop.hand_over(self.process, self, self._drain)

    def fail(self, error: Exception) -> None:
        """The kernel has given up."""
        if not self.closed:
            self._fabric.loop.hand_over(self.process, self, self._lose, error)

    def die(self) -> None:
        """The process has ended: its kernel says so to the other end."""
        if not self.closed:
            self._leave()
            self.out.send(FIN if self._fabric.rng.random() < 0.5 else RESET)

    def vanish(self) -> None:
        """The machine is down."""
        self.gone = True
        self._leave()
        self.out.clear()

    def _leave(self) -> None:
        self.closed = self._closing = True
        self.backlog.clear()
        self._backlog_bytes = 0
        self._fabric.transports.pop(self, None)
        if self._fabric.tap is not None:
            self._fabric.tap.closed(self)

    def _drain(self) -> None:
        if self._factory is not None and not self.closed:
            self.begin(self._factory)
        if self._protocol is None:
            return
        inbox = self._inbox
        while inbox and not self._paused_reading and not self._closing:
            item = inbox.popleft()
            if type(item) is bytes:
                if inbox and type(inbox[0]) is bytes:
                    item = self._join(item)
                self._feed(item)
            elif item is FIN:
                if not self._protocol.eof_received():
                    self.close()
            else:
                self._lose(ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"))
        if RESET in inbox and not self.closed:
            # One is told of it even while one does not read.
            self._lose(ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"))

    def _join(self, first: bytes) -> bytes:
        pieces = [first]
        while self._inbox and isinstance(more := self._inbox[0], bytes):
            pieces.append(more)
            self._inbox.popleft()
        return b"".join(pieces)

    def _feed(self, data: bytes) -> None:
        if not self._buffered:
            self.peer.out.read(len(data))
            if self._fabric.tap is not None:
                self._fabric.tap.taken(self, len(data))
            self._protocol.data_received(data)
            return
        buffer = self._protocol.get_buffer(-1)
        count = min(len(buffer), len(data))
        buffer[:count] = data[:count]
        if count < len(data):
            self._inbox.appendleft(data[count:])
        self.peer.out.read(count)
        if self._fabric.tap is not None:
            self._fabric.tap.taken(self, count)
        self._protocol.buffer_updated(count)

    def _lose(self, error: Exception | None) -> None:
        """The connection has ended; the protocol is told in the next turn."""
        if self.closed:
            return
        self._leave()
        loop = self._fabric.loop
        loop.call_soon(self._tell_lost, error, context=self.process.context)

    def _tell_lost(self, error: Exception | None) -> None:
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            protocol.connection_lost(error)

    # ------------------------------------------------------------ the protocol's side

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "peername":
            return self.peer.address
        if name == "sockname":
            return self.address
        return default

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol
        self._buffered = isinstance(protocol, asyncio.BufferedProtocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol

    def is_closing(self) -> bool:
        return self._closing

    def is_reading(self) -> bool:
        return not self._paused_reading and not self._closing

    def pause_reading(self) -> None:
        self._paused_reading = True

    def resume_reading(self) -> None:
        if self._paused_reading:
            self._paused_reading = False
            if self._inbox:
                self._fabric.loop.call_soon(self._drain, context=self.process.context)

    def get_write_buffer_size(self) -> int:
        return self._backlog_bytes

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return LOW_WATER, HIGH_WATER

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        raise NotImplementedError

    def can_write_eof(self) -> bool:
        return False

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if self._closing or not len(data):
            return
        copied = bytes(data)
        if self._fabric.tap is not None:
            self._fabric.tap.written(self, copied)
        out = self.out
        if not self.backlog and out.window - out.unread >= len(copied):
            # Nearly always: the kernel takes all of it.
            self._send(copied)
            return
        self.backlog.append(copied)
        self._backlog_bytes += len(copied)
        self._push()
        if self._backlog_bytes > HIGH_WATER and not self._paused_writing:
            self._paused_writing = True
            self._protocol.pause_writing()

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        self.write(b"".join(list_of_data))

    def flush(self) -> None:
        """The kernel takes more again."""
        if self.closed:
            return
        self._push()
        if self._paused_writing and self._backlog_bytes <= LOW_WATER and self._protocol is not None:
            self._paused_writing = False
            self._protocol.resume_writing()
        if self._closing and not self.backlog and not self.closed:
            self._finish()

    def _push(self) -> None:
        out, backlog = self.out, self.backlog
        while backlog and (room := out.window - out.unread) > 0:
            data = backlog.popleft()
            if len(data) > room:
                backlog.appendleft(data[room:])
                data = data[:room]
            self._backlog_bytes -= len(data)
            self._send(data)

    def _send(self, data: bytes) -> None:
        rng, out = self._fabric.rng, self.out
        delay = self._fabric.delay_us
        if delay is not None:
            out.send(data, delay(self, data))
            return
        if len(data) > 1 and rng.random() < out.link.split:
            cut = rng.randrange(1, len(data))
            out.send(data[:cut])
            data = data[cut:]
        out.send(data)

    def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        if not self.backlog:
            self._finish()

    def _finish(self) -> None:
        self.out.send(FIN)
        self._lose(None)

    def abort(self) -> None:
        if self.closed:
            return
        self.out.send(RESET if self._inbox or self._fabric.rng.random() < 0.5 else FIN)
        self._lose(None)
