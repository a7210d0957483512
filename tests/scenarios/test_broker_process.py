"""The process: how it ends, whatever else happens, and starts that fail in one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from interop.process import BrokerProcess, wait_until
from interop.raw import RawClient, fetch_fields

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
    assert process.wait(20) == 0


def test_a_stop_answers_long_polls_at_once(ottla_process: Start) -> None:
    broker = ottla_process()
    with RawClient(broker.bootstrap) as client:
        client.create_topic("t")
        client.send(client.frame("Fetch", 11, fetch_fields("t", max_wait_ms=60_000), 7))
        time.sleep(0.2)
        begin = time.monotonic()
        assert broker.process is not None
        broker.process.terminate()
        assert client.answer("Fetch", 11, 7).responses
        assert broker.stop() == 0
        assert time.monotonic() - begin < 4


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
    assert process.wait(20) == 0


def test_a_partition_of_another_topic_is_one_line(ottla_process: Start, tmp_path: Path) -> None:
    broker = ottla_process()
    assert broker.stop() == 0
    (broker.data / "metadata.db").write_bytes(b"not a database" * 100)
    process = serve(broker.data)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 1 and err.decode().count("\n") == 1, err
    assert "metadata.db" in err.decode()
