"""The process: how it ends, whatever else happens, and starts that fail in one line."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from interop.process import BrokerProcess, wait_until
from interop.raw import RawClient, fetch_fields
from measuring import not_waiting
from ottla.cli.local.ports import free_ports

Start = Callable[..., BrokerProcess]


def serve(data: Path, *more: str, **how: int | None) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "ottla.cli.main", "serve", "--data", str(data)]
    command += ["--listen", "127.0.0.1:0", *more]
    return subprocess.Popen(command, stderr=subprocess.PIPE, **how)  # type: ignore[call-overload, no-any-return]


def test_signal_after_signal_ends_it_in_order(ottla_process: Start) -> None:
    """A second SIGTERM, while it stops or while Python ends, must not turn a clean end into a crash."""
    broker = ottla_process()
    process = broker.process
    assert process is not None
    while process.poll() is None:
        process.send_signal(signal.SIGTERM)
        time.sleep(0.0005)
    assert process.wait() == 0, broker.log()
    assert "Traceback" not in broker.log()
    assert (broker.data / ".kafka_cleanshutdown").exists()


def test_a_signal_while_it_starts_ends_it_in_order(ottla_process: Start) -> None:
    broker = ottla_process()
    assert broker.stop() == 0
    process = serve(broker.data)
    wait_until(lambda: b"serves" in process.stderr.readline())  # type: ignore[union-attr]
    process.terminate()
    assert process.wait(60) == 0


def test_a_stop_answers_long_polls_at_once(ottla_process: Start) -> None:
    broker = ottla_process()
    with RawClient(broker.bootstrap) as client:
        client.create_topic("t")
        client.send(client.frame("Fetch", 11, fetch_fields("t", max_wait_ms=60_000), 7))
        broker.heard()
        assert broker.process is not None
        with not_waiting(60):
            broker.process.terminate()
            assert client.answer("Fetch", 11, 7).responses
            assert broker.stop() == 0


def test_it_serves_although_nobody_hears_its_first_line(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    process = serve(tmp_path / "data", stdout=writing)
    os.close(writing)
    try:
        wait_until(lambda: b"could not be printed" in process.stderr.readline())  # type: ignore[union-attr]
        time.sleep(0.1)
        assert process.poll() is None
    finally:
        process.terminate()
    assert process.wait(60) == 0


def test_a_partition_of_another_topic_is_one_line(ottla_process: Start, tmp_path: Path) -> None:
    broker = ottla_process()
    assert broker.stop() == 0
    (broker.data / "metadata.db").write_bytes(b"not a database" * 100)
    process = serve(broker.data)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1 and err.decode().count("\n") == 1, err
    assert "metadata.db" in err.decode()


CLOSED = """
import os, sys
for fd in (0, 1, 2):
    os.close(fd)
os.execv(sys.executable, [sys.executable, "-m", "ottla.cli.main", "serve", *sys.argv[1:]])
"""


def test_it_serves_and_stops_in_order_with_its_standard_streams_closed(tmp_path: Path) -> None:
    """libuv aborts where one of the first three descriptors is a file of its own that it is to close."""
    (port,) = free_ports(1)
    options = ["--data", str(tmp_path / "data"), "--listen", f"127.0.0.1:{port}"]
    process = subprocess.Popen([sys.executable, "-c", CLOSED, *options])
    try:
        address = f"127.0.0.1:{port}"
        wait_until(lambda: is_ready(address))
        with RawClient(address) as client:
            assert client.create_topic("t").error_code == 0
        process.terminate()
        assert process.wait(60) == 0
        assert (tmp_path / "data" / ".kafka_cleanshutdown").exists()
    finally:
        process.kill()


def is_ready(address: str) -> bool:
    """Whether it has its place: it answers somewhat earlier, for nodes of a cluster to find it."""
    try:
        with RawClient(address) as client:
            return bool(client.call("Metadata", 1, topics=None).brokers)
    except OSError:
        return False


# A line of a traceback through a function of ours.
OURS = re.compile(rb'ottla/cli/main\.py", line [0-9]+, in (main|_)')


def test_ctrl_c_at_any_moment_is_no_traceback(ottla_process: Start) -> None:
    """While Python imports, while librdkafka calls back, while it ends."""
    broker = ottla_process()
    lines = b"message\n" * 200_000
    for delay_ms in range(0, 1_000, 100):
        process = subprocess.Popen(
            [sys.executable, "-m", "ottla.cli.main", "produce", "t", "-b", broker.bootstrap],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        feeder = threading.Thread(target=feed, args=(process, lines))
        feeder.start()
        time.sleep(0.05 + delay_ms / 1000)
        process.send_signal(signal.SIGINT)
        feeder.join(60)
        assert process.stderr is not None
        err = process.stderr.read()
        process.wait(60)
        # Before our first function runs, Python itself may say how it was interrupted.
        assert not OURS.search(err), (delay_ms, err)
        assert process.returncode in (0, 130, -signal.SIGINT, 1), (delay_ms, process.returncode, err)


def feed(process: subprocess.Popen[bytes], lines: bytes) -> None:
    assert process.stdin is not None
    with suppress(OSError):
        process.stdin.write(lines)
    with suppress(OSError):
        process.stdin.close()
