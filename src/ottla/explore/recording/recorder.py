"""Records a run: attached to a world before the run begins, it looks on and changes nothing of it."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from typing import TypeVar
from uuid import UUID

from ottla.explore.recording.recording import (
    ENTRIES_MAX,
    NETWORK,
    TEXT_MAX,
    WORLD,
    Kind,
    Recording,
    Remark,
    Span,
)
from ottla.explore.recording.tape import Tape
from ottla.explore.recording.wiretap import WireTap
from ottla.explore.world.loop import SECOND_US, Process
from ottla.explore.world.machine import Machine
from ottla.explore.world.machines import Machines
from ottla.explore.world.trace import PAUSED, RESUMED, SERVES
from ottla.metadata import keys
from ottla.metadata.store import Event

T = TypeVar("T")


class Recorder:
    """``world.trace.Observer``, beside a `WireTap` and the changes of the store."""

    def __init__(self, world: Machines) -> None:
        self._world = world
        self._recording = Recording(lanes=[node.machine.name for node in world.nodes.values()])
        self._recording.nodes = len(world.nodes)
        # The spans of processes that run, of what stands still, and of what is down, by its lane.
        self._running: dict[Process, Span] = {}
        self._paused: dict[Process, Span] = {}
        self._down: dict[str, Span] = {}
        # What was said last on a lane.
        self._said: dict[str, str] = {}
        # A fault that may last, as it has struck just now; those that last, as often as they have begun.
        self._struck: Remark | None = None
        self._faults: dict[Callable[[], None], deque[Span | None]] = {}
        self._topics: dict[UUID, str] = {}
        self._leaders: dict[str, tuple[int, int]] = {}
        world.trace.observer = self
        self._tape = Tape(self._now_s)
        self._tape.player = WireTap(self._recording, self._tape.now_s, self._topic)
        world.fabric.tap = self._tape
        world.store_server.observer = self._changed

    def recording(self) -> Recording:
        """What has happened so far."""
        self._tape.play()
        self._recording.remarks.sort(key=lambda remark: remark.at_s)
        self._recording.end_s = self._now_s()
        return self._recording

    def _now_s(self) -> float:
        return self._world.loop.now_us / SECOND_US

    def _add(self, entries: list[T], entry: T) -> T:
        if len(entries) < ENTRIES_MAX:
            entries.append(entry)
        return entry

    def _begin(self, lane: str, kind: Kind, text: str = "") -> Span:
        span = Span(lane=lane, kind=kind, begin_s=self._now_s(), text=text[:TEXT_MAX])
        return self._add(self._recording.spans, span)

    def _end(self, span: Span | None) -> None:
        if span is not None:
            span.end_s = self._now_s()

    def _remark(self, lane: str, text: str) -> Remark:
        return self._add(self._recording.remarks, Remark(lane=lane, at_s=self._now_s(), text=text[:TEXT_MAX]))

    # ------------------------------------------------------------ processes

    def happened(self, who: object, what: str) -> None:
        if isinstance(who, Process):
            self._of_process(who, what)
        elif isinstance(who, Machine):
            self._said[who.name] = what
        elif who == WORLD:
            self._remark(WORLD, what)

    def _of_process(self, process: Process, what: str) -> None:
        lane = process.machine.name
        if process.dead:
            # Why it has ended is known a little later.
            if lane in self._down:
                self._down[lane].text = what[:TEXT_MAX]
        elif process not in self._running:
            if lane not in self._recording.lanes:
                self._recording.lanes.append(lane)
            self._end(self._down.pop(lane, None))
            self._running[process] = self._begin(lane, Kind.RUNS)
        elif what == PAUSED:
            self._paused[process] = self._begin(lane, Kind.PAUSED, what)
        elif what == RESUMED:
            self._end(self._paused.pop(process, None))
        elif what == SERVES:
            self._remark(lane, f"{lane} {what}")
        else:
            self._said[lane] = what

    def ended(self, process: Process) -> None:
        span = self._running.pop(process, None)
        if span is not None:
            lane = process.machine.name
            self._end(span)
            self._end(self._paused.pop(process, None))
            self._down[lane] = self._begin(lane, Kind.DOWN, self._said.get(lane, ""))

    # ------------------------------------------------------------ faults

    def fault(self, lane: str, what: str) -> None:
        self._struck = self._remark(lane, what)

    def fault_lasts(self, undo: Callable[[], None]) -> None:
        struck, self._struck = self._struck, None
        span = None
        if struck is not None and struck.at_s == self._now_s():
            # It has an end, so it is no remark.
            if self._recording.remarks and self._recording.remarks[-1] is struck:
                self._recording.remarks.pop()
            span = self._begin(struck.lane, Kind.FAULT, struck.text)
        self._faults.setdefault(undo, deque()).append(span)

    def fault_ended(self, undo: Callable[[], None]) -> None:
        spans = self._faults.get(undo)
        if spans:
            self._end(spans.popleft())

    # ------------------------------------------------------------ the store

    def _changed(self, events: list[Event]) -> None:
        for event in events:
            if event.value is not None and event.key.startswith(keys.PARTITIONS):
                state = json.loads(event.value)
                topic, _, index = event.key.removeprefix(keys.PARTITIONS).rpartition("/")
                leads = state["leader"], state["leader_epoch"]
                if self._leaders.get(event.key, self._founded(topic, int(index))) != leads:
                    self._elected(topic, index, *leads)
                self._leaders[event.key] = leads
            elif event.value is not None and event.key.startswith(keys.TOPICS):
                self._topics[UUID(keys.decode(event.value)["id"])] = event.key.removeprefix(keys.TOPICS)

    def _founded(self, topic: str, index: int) -> tuple[int, int]:
        """Who leads a partition first, in which epoch: nothing is stored of it until somebody else does."""
        stored = self._world.store_server.keys.get(keys.topic(topic))
        return (-1, -1) if stored is None else (keys.decode(stored.value)["replicas"][index][0], 0)

    def _elected(self, topic: str, index: str, leader: int, epoch: int) -> None:
        node = self._world.nodes.get(leader)
        if node is None:
            self._remark(NETWORK, f"nobody leads {topic}-{index} (epoch {epoch})")
        else:
            self._remark(node.machine.name, f"{node.machine} leads {topic}-{index} (epoch {epoch})")

    def _topic(self, topic_id: UUID) -> str:
        if topic_id not in self._topics:
            for key, item in self._world.store_server.keys.items():
                if key.startswith(keys.TOPICS):
                    self._topics[UUID(keys.decode(item.value)["id"])] = key.removeprefix(keys.TOPICS)
        return self._topics.get(topic_id, str(topic_id))
