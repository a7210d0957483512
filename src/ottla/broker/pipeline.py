"""One client's requests and responses, without a socket: order, waiting, and what may be held meanwhile.

Frames come in, pieces of responses go out in the order of their requests. Requests are handled in order. One
whose answer must wait keeps those behind it waiting, as in Kafka, except that a Produce which waits for
replicas or the disk does not: what follows it is handled, and the responses still leave in order. A Fetch of
a follower that waits is answered when something else of that follower comes.

Requests without an answer (a Produce with acks=0) of a client that has disconnected are still handled; other
requests that waited are not. Kafka handles all that has come.

The owner of the socket calls the methods; the pipeline calls it back through an ``Outlet``.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from ottla.broker.memory import Memory
from ottla.broker.outlet import NOWHERE, Outlet
from ottla.broker.pending import Pending, Pieces
from ottla.broker.request import Client, CloseConnection
from ottla.broker.stages import Flow, Life, Stage
from ottla.broker.turn import Turn
from ottla.env.clock import monotonic_ns
from ottla.env.deferred import Deferred
from ottla.types import Buffer
from ottla.wire.messages import MalformedMessage, wants_no_answer

log = logging.getLogger(__name__)

# What a client may have in hand before we stop receiving from it. Requests received but not handled:
QUEUED_REQUESTS_MAX: Final = 64
# Answers that are pending or made, and wait for the one before them (pipelined Produce requests); while there
# are as many, nothing further is handled either:
PENDING_REPLIES_MAX: Final = 256
# Bytes of the requests that wait to be handled, and of those that wait to be answered with the answers behind
# them. The rest of one request, or one answer, may come on top, and what came with it in one piece.
HELD_BYTES_MAX: Final = 8 * 1024 * 1024
# Answers to requests that came in one piece are sent in one, of up to so many bytes.
TOGETHER_BYTES_MAX: Final = 16 * 1024

Handle = Callable[[Client, Buffer], Pieces | Pending | None]


def _wants_no_answer(frame: Buffer) -> bool:
    try:
        return wants_no_answer(frame)
    except MalformedMessage:
        return False


# Looked up at each request: a module's names are found faster than those of an enumeration.
_READY: Final = Stage.READY
_HANDLING: Final = Stage.HANDLING
_BLOCKED: Final = Stage.BLOCKED
_SERVED: Final = Life.SERVED
_ENDING: Final = Life.ENDING
_ENDED: Final = Life.ENDED
_OPEN: Final = Flow.OPEN


class Pipeline:
    """The requests of one client."""

    __slots__ = (
        "_arrivals",
        "_choked",
        "_client",
        "_flow",
        "_handle",
        "_kept_bytes",
        "_life",
        "_memory",
        "_mutes",
        "_outlet",
        "_pending_bytes",
        "_queue",
        "_queued_bytes",
        "_replies",
        "_reply_bytes",
        "_stage",
        "_together",
        "_together_bytes",
        "_turn",
        "partial_bytes",
        "receiving",
    )

    def __init__(self, client: Client, handle: Handle, outlet: Outlet, memory: Memory, turn: Turn) -> None:
        self._client = client
        self._handle = handle
        self._outlet = outlet
        self._memory = memory
        self._turn = turn
        # A request of which a part has come; those that wait to be handled; those that wait to be answered,
        # and the answers that wait for these.
        self.partial_bytes = 0
        self._queue: deque[Buffer] = deque()
        self._queued_bytes = 0
        # When they came, the first of them at least, where somebody watches requests; most clients have none.
        self._arrivals: deque[int] | None = None
        self._replies: deque[Pending | Pieces] = deque()
        self._pending_bytes = 0
        self._reply_bytes = 0
        # What the memory of all knows of.
        self._kept_bytes = 0
        self._life = _SERVED
        self._stage = _READY
        self._flow = _OPEN
        # Why it may not be: the client does not take what it is sent, or it is over so many quotas.
        self._choked = False
        self._mutes = 0
        # Answers that are sent in one piece, while several requests are handled; None: each by itself.
        self._together: Pieces | None = None
        self._together_bytes = 0
        # What the outlet was told last; if not, we do not notice either that the client is gone.
        self.receiving = True

    @property
    def oldest(self) -> Pending | None:
        """The answer that the client waits for first; None where it waits for none."""
        first = self._replies[0] if self._replies else None
        return first if isinstance(first, Pending) else None

    # ------------------------------------------------------------ what the socket's holder tells

    def received(self, frames: Iterable[Buffer]) -> None:
        """Requests have come. What ``frames`` raises is handed on; what came before that is served."""
        life, queue = self._life, self._queue
        if (
            type(frames) is tuple
            and len(frames) == 1
            and life is _SERVED
            and self._stage is _READY
            and self._flow is _OPEN
            and not queue
            and not self._replies
        ):
            # As most requests come: one by itself, with nothing in its way.
            (frame,) = frames
            if not self._turn.admits():
                queue.append(frame)
                self._queued_bytes += len(frame)
                self._note_arrivals()
                self._put_off()
                self._balance()
            elif self._take(frame):
                self._balance()
            return
        try:
            if life is _SERVED or life is Life.DRAINED:
                for frame in frames:
                    queue.append(frame)
                    self._queued_bytes += len(frame)
        finally:
            self._note_arrivals()
            if self._stage is _BLOCKED and queue:
                self._hurry()
            elif queue and self._stage is _READY and not self._turn.admits():
                self._put_off()
            self._run()

    def _note_arrivals(self) -> None:
        """Note when requests came, where somebody wants to know how long they wait."""
        if self._turn.is_watched:
            arrivals = self._arrivals
            if arrivals is None:
                arrivals = self._arrivals = deque()
            arrivals.extend([monotonic_ns()] * (len(self._queue) - len(arrivals)))

    def partly_received(self, partial_bytes: int) -> None:
        """So much is set aside for a large request under way."""
        self.partial_bytes = partial_bytes
        self._balance()

    def memory_is_free(self) -> None:
        self._balance()

    def choke(self) -> None:
        """The client does not take what it is sent: handle nothing more until ``unchoke``."""
        self._choked = True
        self._flow = Flow.CHOKED
        self._balance()

    def unchoke(self) -> None:
        self._choked = False
        self._open_flow()

    def mute(self) -> None:
        """The client is over a quota: handle nothing more until as many ``unmute``."""
        self._mutes += 1
        self._flow = Flow.CHOKED
        if self._life is Life.DRAINED:
            self._drop_queue()
        self._balance()

    def unmute(self) -> None:
        self._mutes -= 1
        self._open_flow()

    def _open_flow(self) -> None:
        if not self._choked and self._mutes <= 0 and self._flow is not _OPEN:
            self._flow = _OPEN
            self._run()

    def gone(self) -> None:
        """The client is gone: nobody waits for the answers any more."""
        if not self.open:
            self.lost()
            return
        self._life = Life.GONE
        # Who held the socket is not held any longer.
        self._outlet = NOWHERE
        self._memory.forget(self)
        self._flow = _OPEN
        queue = [frame for frame in self._queue if _wants_no_answer(frame)]
        self._drop_queue()
        self._queue += queue
        self._queued_bytes = sum(map(len, queue))
        # What cannot be given up is waited for, and counted: what follows it is to come behind it.
        waits = [reply for reply in self._replies if isinstance(reply, Pending) and not reply.done]
        going_on = [reply for reply in waits if reply.runs_to_its_end]
        self._replies = deque(going_on)
        self._count_replies(-self._reply_bytes)
        self._pending_bytes = sum([reply.request_bytes for reply in going_on])
        if self._stage is _BLOCKED and not any(reply.blocks for reply in going_on):
            self._stage = _READY
        for reply in waits:
            if reply not in going_on:
                reply.cancel()
        self._client.leave()
        self._run()

    def lost(self) -> None:
        """The connection is to be gone at once: nobody waits for the answers any more."""
        self._end()
        self._client.leave()
        self._memory.forget(self)
        # Who held the socket is not held any longer.
        self._outlet = NOWHERE

    @property
    def idle(self) -> bool:
        """Whether nothing is being worked on for this client."""
        return not self._replies and not self._queue

    @property
    def open(self) -> bool:
        """Whether what the client sends is still of interest."""
        return self._life is _SERVED or self._life is Life.DRAINED

    # ------------------------------------------------------------ its end

    def drain(self) -> None:
        """Receive nothing more; what has come is still answered, but of who is over a quota: a broker that
        stops waits for no end of that."""
        if self._life is _SERVED:
            self._life = Life.DRAINED
            self._receive(False)
            if self._mutes > 0:
                self._drop_queue()
                self._balance()

    def refuse(self, reason: str) -> None:
        """Take nothing more, and close once what came before is answered; the log says why."""
        if self._life is Life.GONE:
            self._give_up(reason)
        elif self.open:
            log.warning("%s: closing the connection: %s", self._client, reason)
            self.close()

    def close(self) -> None:
        """Handle nothing more, and close once what is being worked on is answered."""
        if self._life is _ENDED:
            return
        self._drop_queue()
        self._receive(False)
        self._life = _ENDING
        self._count()
        if not self._replies:
            self._close_outlet()

    def _close_outlet(self) -> None:
        self._send_together()
        self._outlet.close()

    def _drop_queue(self) -> None:
        self._queue.clear()
        self._arrivals = None
        self._queued_bytes = self.partial_bytes = 0

    def _end(self) -> None:
        self._life = _ENDED
        self._drop_queue()
        replies, self._replies = self._replies, deque()
        self._pending_bytes = 0
        self._count_replies(-self._reply_bytes)
        self._count()
        for reply in replies:
            if isinstance(reply, Pending):
                reply.cancel()

    def _give_up(self, reason: str) -> None:
        """Close now that it is the turn of a request that gets no answer: those behind it get none either."""
        log.warning("%s: closing the connection: %s", self._client, reason)
        self._receive(False)
        self._end()
        self._close_outlet()

    # ------------------------------------------------------------ requests and replies

    def _run(self) -> None:
        """Handle what has come, as far as nothing is in the way."""
        # Thousands of small ones may come in one piece. One that comes alone costs no look at the clock.
        if len(self._queue) > 1 and self._together is None:
            self._together = []
            try:
                ended = self._take_all(self._turn.deadline_ms())
            finally:
                self._send_together()
                self._together = None
        else:
            ended = self._take_all(0)
        if not ended:
            self._balance()

    def _take_all(self, deadline_ms: int) -> bool:
        """Handle what has come, until a deadline (0: there is none); whether the connection has ended."""
        queue = self._queue
        while queue and self._stage is _READY and self._flow is _OPEN:
            if self._replies and self._replies_are_full():
                break
            if deadline_ms and self._turn.is_over(deadline_ms):
                self._stage = Stage.PUT_OFF
                self._turn.later(self._go_on)
                break
            frame = queue.popleft()
            self._queued_bytes -= len(frame)
            arrivals = self._arrivals
            if arrivals:
                self._client.waited_ns = monotonic_ns() - arrivals.popleft()
            if not self._take(frame):
                return True
        return False

    def _take(self, frame: Buffer) -> bool:
        """Handle a request, and give its answer where it belongs; False where it has ended the connection."""
        self._stage = _HANDLING
        try:
            reply = self._handle(self._client, frame)
        except (MalformedMessage, CloseConnection) as error:
            self.refuse(str(error))
            return False
        finally:
            self._stage = _READY
        if reply is None:
            return True
        if self._life is _ENDED:
            # Its own handling has ended the connection, or found the answer of one before it to do so.
            if isinstance(reply, Pending):
                reply.cancel()
        elif isinstance(reply, Pending):
            self._wait_for(reply, len(frame))
        elif self._replies:
            self._replies.append(reply)
            self._count_replies(sum(map(len, reply)))
        elif self._together is None:
            self._outlet.write(reply)
        else:
            self._send(reply)
        return True

    def _send(self, pieces: Pieces) -> None:
        """Send an answer, with others where they are sent together."""
        if self._together is not None:
            size = sum(map(len, pieces))
            if self._together_bytes + size > TOGETHER_BYTES_MAX:
                self._send_together()
            if size <= TOGETHER_BYTES_MAX:
                self._together += pieces
                self._together_bytes += size
                return
        self._outlet.write(pieces)

    def _send_together(self) -> None:
        if self._together:
            pieces, self._together = self._together, []
            self._together_bytes = 0
            self._outlet.write([b"".join(pieces)])

    def _put_off(self) -> None:
        """All else that is due comes before what has come here."""
        self._stage = Stage.PUT_OFF
        self._turn.put_off(self._go_on)

    def _go_on(self) -> None:
        """Everybody else had their turn."""
        self._stage = _READY
        self._run()

    def _wait_for(self, reply: Pending, request_bytes: int) -> None:
        self._replies.append(reply)
        if reply.blocks:
            self._stage = _BLOCKED
            reply.on_release = self._released
        reply.request_bytes = request_bytes
        self._pending_bytes += request_bytes
        if reply.done:
            self._write_replies()
        else:
            reply.listen(self._answered)
            if self._queue and reply.blocks:
                self._hurry()

    def _hurry(self) -> None:
        """The client asks for something else: what it waits for is answered, if that can be."""
        waited_for = self._replies[-1]
        if isinstance(waited_for, Pending) and waited_for.hurry is not None:
            waited_for.hurry()

    def _released(self) -> None:
        self._stage = _READY
        if self._life is not _ENDED:
            self._run()

    def _answered(self, reply: Deferred[Pieces | None]) -> None:
        if self._life is not _ENDED:
            if reply is not self._replies[0]:
                self._keep_reply(reply)
            self._write_replies()
            self._run()

    def _write_replies(self) -> None:
        """Write what is answered, as far as all before it is."""
        replies = self._replies
        while replies:
            first = replies[0]
            if isinstance(first, Pending):
                if not first.done:
                    return
                self._pending_bytes -= first.request_bytes
                if first.reply_bytes:
                    self._count_replies(-first.reply_bytes)
                if first.blocks:
                    self._stage = _READY
                try:
                    pieces = first.result()
                except CloseConnection as error:
                    self._give_up(str(error))
                    return
                if first.charge is not None and pieces is not None:
                    pieces = first.charge(pieces)
            else:
                pieces = first
                self._count_replies(-sum(map(len, first)))
            replies.popleft()
            if pieces is not None:
                self._send(pieces)
        if self._life is _ENDING:
            self._close_outlet()

    def _balance(self) -> None:
        """Stop receiving while this client has too much in hand, and go on when it has not."""
        if (
            not (self._queue or self._replies or self.partial_bytes or self._kept_bytes)
            and self.receiving
            and self._flow is _OPEN
        ):
            # As after most requests: all is answered, and was before.
            return
        self._count()
        if self._life is _SERVED:
            self._receive(
                not (
                    self._flow is not _OPEN
                    or (self._replies and self._replies_are_full())
                    or len(self._queue) >= QUEUED_REQUESTS_MAX
                    or self._queued_bytes >= HELD_BYTES_MAX
                    or not (self._kept_bytes == 0 or self._memory.may_hold(self, self._kept_bytes))
                )
            )

    def _count(self) -> None:
        """Tell the memory of all what is kept of requests."""
        kept = self.partial_bytes + self._queued_bytes + self._pending_bytes
        if kept != self._kept_bytes:
            change, self._kept_bytes = kept - self._kept_bytes, kept
            self._memory.keep(self, change, kept)

    def _keep_reply(self, reply: Deferred[Pieces | None]) -> None:
        """An answer has been made, and waits for the one before it."""
        assert isinstance(reply, Pending)
        if not reply.failed and (pieces := reply.result()) is not None:
            reply.reply_bytes = sum(map(len, pieces))
            self._count_replies(reply.reply_bytes)

    def _count_replies(self, change: int) -> None:
        self._reply_bytes += change
        self._memory.unsent_bytes += change

    def _replies_are_full(self) -> bool:
        return (
            len(self._replies) >= PENDING_REPLIES_MAX
            or self._pending_bytes + self._reply_bytes >= HELD_BYTES_MAX
        )

    def _receive(self, go_on: bool) -> None:
        if self.receiving is not go_on:
            self.receiving = go_on
            self._outlet.receive(go_on)
