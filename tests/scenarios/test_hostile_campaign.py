"""Requests of every API in every version, each as much as it may be, beside a client that must not wait.

The requests are made from the definitions of the messages (`interop.heavy`), so what is served next is
covered by itself. The wait that counts is the event loop's own work between a small request and its answer
(`interop.held`), in terms of a machine of known speed: it does not grow where other programs have the cores.
`OTTLA_SOAK=1` goes on for an hour and takes every shape of every request.
"""

from __future__ import annotations

import itertools
import math
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from interop.bystander import Bystander
from interop.heavy import ALL, Heavy, Shape
from interop.held import Watch
from interop.process import BrokerProcess
from interop.raw import RawClient
from measuring import slowness
from ottla.wire.apis import APIS, Api

SOAK = bool(os.environ.get("OTTLA_SOAK"))
SECONDS = 3_600 if SOAK else 40
SEED = int(os.environ.get("OTTLA_SEED", "0")) or (random.randrange(1, 2**31) if SOAK else 1)

# What another client may have to wait for one request, in CPU time of the loop, on a machine of that speed.
HELD_MS_MAX = 50.0
# What holds the loop does so again. Once it may have been the machine: a core that was shared, cold caches.
TRIES = 3
# Several at the same time: each connection may have its request in the same turn of the loop.
AT_ONCE = 6
# What all of that may cost in memory that stays.
GROWTH_BYTES_MAX = 250_000_000
# A JoinGroup or SyncGroup may wait for others for minutes: nobody waits for its answer.
ANSWER_S_MAX = 3.0

Case = tuple[Api, int, Shape]


class Told(NamedTuple):
    """What a request did to the others."""

    held_ms: float
    case: str


def name(case: Case) -> str:
    api, version, shape = case
    return f"{api.name} v{version} {shape.name}"


def cases(chance: random.Random) -> Iterator[Case]:
    """All requests, in a new order and new shapes again and again."""
    shapes = list(Shape)
    for turn in itertools.count():
        order = list(ALL)
        chance.shuffle(order)
        for place, (api, version) in enumerate(order):
            yield api, version, shapes[(place + turn) % len(shapes)]


def ask(broker: BrokerProcess, frame: bytes, wait_s: float) -> None:
    """Send a request over a connection of its own, and wait until something comes of it."""
    with socket.create_connection((broker.host, broker.port), 10) as sock:
        sock.settimeout(wait_s)
        try:
            sock.sendall(frame)
            sock.recv(1 << 16)
        except (TimeoutError, ConnectionError):
            return


@pytest.fixture
def broker(ottla_process: Callable[..., BrokerProcess]) -> BrokerProcess:
    return ottla_process({"auto.create.topics.enable": "false"})


def heavy(broker: BrokerProcess) -> Heavy:
    """What makes the requests, with two topics that exist."""
    with RawClient(broker.bootstrap) as client:
        for topic in ("t", "u"):
            assert client.create_topic(topic, 2).error_code == 0
        found = client.call(
            "Metadata",
            12,
            topics=None,
            allow_auto_topic_creation=False,
            include_topic_authorized_operations=False,
        )
    return Heavy(SEED, [topic.topic_id for topic in found.topics], ["t", "u", "g", "range"])


@pytest.mark.timeout(SECONDS * 2 + 300)
def test_each_request_by_itself(broker: BrokerProcess) -> None:
    """Every API in every version at least once, unless the machine is very slow."""
    maker = heavy(broker)
    before, slow = broker.rss_bytes(), slowness()
    told: list[Told] = []
    seen: set[int] = set()
    deadline_s = time.monotonic() + SECONDS
    with Watch(broker.bootstrap, broker.pid) as watch:
        for number, case in enumerate(cases(maker.chance)):
            if time.monotonic() > deadline_s and seen == set(APIS):
                break
            if not SOAK and number >= len(ALL):
                break
            frame = maker.frame(*case)
            seen.add(case[0].key)
            held_ms = math.inf
            for _ in range(TRIES):
                since_s = time.monotonic()
                ask(broker, frame, ANSWER_S_MAX if SOAK else 1.0)
                watch.settle()
                held_ms = min(held_ms, watch.worst(since_s).cpu_ms)
                if held_ms <= HELD_MS_MAX:
                    break
            told.append(Told(held_ms, name(case)))
            if number % 40 == 39:
                slow = max(slow, slowness())
    too_long = [one for one in sorted(told, reverse=True) if one.held_ms > HELD_MS_MAX * slow]
    assert not too_long, "\n".join([f"seed {SEED}, {slow:.2f} times slower", *map(str, too_long)])
    assert broker.rss_bytes() - before < GROWTH_BYTES_MAX
    assert "Traceback" not in broker.log()


@pytest.mark.timeout(SECONDS * 2 + 300)
def test_many_at_once(broker: BrokerProcess) -> None:
    """Several clients at the same time, some of which never read what they get."""
    maker = heavy(broker)
    before = broker.rss_bytes()
    chosen = list(itertools.islice(cases(maker.chance), 4_000 if SOAK else 48))
    frames = [(name(case), maker.frame(*case)) for case in chosen]
    left = iter(frames)
    lock = threading.Lock()

    def throw() -> None:
        while True:
            with lock:
                entry = next(left, None)
            if entry is None:
                return
            ask(broker, entry[1], 1.0 if len(entry[0]) % 3 else 0.02)

    slow = slowness()
    with Bystander(broker.bootstrap, latency_s_max=10.0), Watch(broker.bootstrap, broker.pid) as watch:
        threads = [threading.Thread(target=throw) for _ in range(AT_ONCE)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    slow = max(slow, slowness())
    assert watch.worst().cpu_ms <= HELD_MS_MAX * slow * AT_ONCE, (SEED, slow, watch.worst())
    waits = sorted(one.cpu_ms for one in watch.held)
    assert waits[len(waits) // 2] <= HELD_MS_MAX * slow, (SEED, slow)
    assert broker.rss_bytes() - before < GROWTH_BYTES_MAX
    assert "Traceback" not in broker.log()


def test_the_measure_sees_a_loop_that_is_held(broker: BrokerProcess) -> None:
    """An accepted request that is nothing but work shows with the time that it takes."""
    with Watch(broker.bootstrap, broker.pid) as watch:
        began_ms = watch.cpu_ms()
        since_s = time.monotonic()
        with RawClient(broker.bootstrap) as client:
            frame = client.frame("ApiVersions", 0, {})
            # One turn of the loop takes all of these from the connection's buffer.
            client.send(frame * 2_000)
            for _ in range(2_000):
                client.receive()
        spent_ms = watch.cpu_ms() - began_ms
    assert 0 < watch.worst(since_s).cpu_ms <= spent_ms * 1.5
