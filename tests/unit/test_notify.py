"""The service manager's socket: what is taken from the environment, and how often the watchdog is told."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_metadata_store_contract import ManualClock

from ottla.env.notify import BEAT_MS_MIN, ServiceManager


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(str(tmp_path / "notify"))
        made.setblocking(False)
        yield made


def told(listening: socket.socket) -> list[str]:
    found = []
    while True:
        try:
            found.append(listening.recv(4096).decode())
        except BlockingIOError:
            return found


def environment(listening: socket.socket, **more: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": listening.getsockname(), "HOME": "/", **more}


def test_the_watchdog_is_told_twice_in_its_time_until_the_end(listening: socket.socket) -> None:
    clock = ManualClock()
    manager = ServiceManager.take(environment(listening, WATCHDOG_USEC="30000000"), clock)
    manager.status("starting")
    clock.advance(60_000)
    assert told(listening) == ["STATUS=starting"]
    manager.ready("listening")
    assert told(listening) == ["READY=1\nSTATUS=listening", "WATCHDOG=1"]
    clock.advance(14_999)
    assert told(listening) == []
    clock.advance(1)
    assert told(listening) == ["WATCHDOG=1"]
    manager.stopping("bye")
    clock.advance(15_000)
    assert told(listening) == ["STOPPING=1\nSTATUS=bye", "WATCHDOG=1"]
    manager.close()
    clock.advance(60_000)
    assert told(listening) == []


def test_a_watchdog_of_no_time_leaves_the_event_loop_alone(listening: socket.socket) -> None:
    clock = ManualClock()
    manager = ServiceManager.take(environment(listening, WATCHDOG_USEC="1"), clock)
    manager.ready("listening")
    told(listening)
    clock.advance(int(BEAT_MS_MIN) - 1)
    assert told(listening) == []
    clock.advance(1)
    assert told(listening) == ["WATCHDOG=1"]
    manager.close()


@pytest.mark.parametrize(
    ("given", "beats"),
    [
        ({}, 0),
        ({"WATCHDOG_USEC": "0"}, 0),
        ({"WATCHDOG_USEC": "soon"}, 0),
        ({"WATCHDOG_USEC": "1000000"}, 3),
        ({"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": str(os.getpid())}, 3),
        ({"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}, 0),
    ],
)
def test_what_the_environment_says_of_the_watchdog(
    listening: socket.socket, given: dict[str, str], beats: int
) -> None:
    clock = ManualClock()
    variables = environment(listening, **given)
    ServiceManager.take(variables, clock).ready("here")
    for _ in range(2):
        clock.advance(500)
    assert told(listening).count("WATCHDOG=1") == beats
    # Programs that are started later are not the service.
    assert variables == {"HOME": "/"}


@pytest.mark.parametrize("address", ["", "vsock:2:1234", "notify", "@", "/nowhere/notify"])
def test_where_nobody_can_be_told_nothing_fails(address: str) -> None:
    clock = ManualClock()
    manager = ServiceManager.take({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000000"}, clock)
    manager.ready("here")
    manager.stopping("bye")
    manager.close()
    clock.advance(5_000)


def test_a_manager_that_does_not_read_holds_nobody(listening: socket.socket) -> None:
    manager = ServiceManager.take(environment(listening), ManualClock())
    for _ in range(5_000):
        manager.status("x" * 200)
    assert 0 < len(told(listening)) < 5_000
