"""The benchmarks' arithmetic, the view through /proc, and the raw client against a server of the test."""

from __future__ import annotations

import multiprocessing
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from measuring import HANG_S
from ottla.cli.bench import cold, processes, raw, runner, single, transactions, workers
from ottla.cli.bench.processes import Usage
from ottla.cli.bench.report import Result, percentiles, show
from ottla.cli.errors import CliError
from ottla.wire import messages, records

ONE_S = [i / 1000 for i in range(1, 1001)]


def result(**changes: object) -> Result:
    fields = {
        "test": "produce",
        "client": "a client",
        "settings": {"acks": "1"},
        "unit": "messages",
        "count": 2_000_000,
        "bytes_total": 4_000_000_000,
        "seconds": 2.0,
        "before": Usage(1.0, 1),
        "after": Usage(1.5, 50_000_000),
    }
    return Result(**{**fields, **changes})  # type: ignore[arg-type]


def test_percentiles_are_of_all_samples_in_any_order() -> None:
    assert percentiles(list(reversed(ONE_S))) == {
        "mean": 500.5,
        "p50": 501.0,
        "p90": 901.0,
        "p99": 991.0,
        "p99.9": 1000.0,
        "max": 1000.0,
    }
    assert percentiles([0.25])["p50"] == percentiles([0.25])["max"] == 250
    assert percentiles([]) == {}


@given(st.lists(st.floats(0, 100), min_size=1))
def test_percentiles_grow(latencies: list[float]) -> None:
    figures = percentiles(latencies)
    ordered = [figures[name] for name in ("p50", "p90", "p99", "p99.9", "max")]
    assert ordered == sorted(ordered)
    assert ordered[-1] == round(max(latencies) * 1000, 3)


def test_costs_are_per_million_and_per_gigabyte() -> None:
    figures = result().figures()
    assert figures["messages_per_s"] == 1_000_000
    assert figures["mb_per_s"] == 2000
    assert figures["broker_cpu_s"] == 0.5
    assert figures["broker_cpu_s_per_million"] == 0.25
    assert figures["broker_cpu_s_per_gb"] == 0.125
    assert figures["broker_memory_mb"] == 50
    assert figures["broker_cpu_us_per_request"] is None


def test_costs_of_something_and_what_is_beside_it_are_not_told_apart(
    capsys: pytest.CaptureFixture[str],
) -> None:
    beside = result(test="produce", unit="requests", latencies_s=[0.5])
    measured = result(test="latency", unit="requests", latencies_s=[0.25], beside=beside)
    figures = measured.figures()
    assert figures["broker_cpu_s"] == 0.5
    assert figures["broker_cpu_us_per_request"] is figures["broker_cpu_s_per_gb"] is None
    assert figures["beside"]["mb_per_s"] == 2000
    assert (figures["latency_ms"]["max"], figures["beside"]["latency_ms"]["max"]) == (250, 500)
    show(measured, json=False)
    shown = capsys.readouterr().out.splitlines()
    assert any(line.startswith("latency max ") and " 250 " in line for line in shown)
    assert any(line.startswith("beside it: latency max ") and " 500 " in line for line in shown)
    assert "beside" not in beside.figures()


def test_costs_are_per_request_where_requests_are_counted() -> None:
    figures = result(unit="requests", count=10_000).figures()
    assert figures["requests"] == 10_000
    assert figures["broker_cpu_us_per_request"] == 50
    assert figures["broker_cpu_s_per_million"] is None


def test_an_invisible_broker_costs_null_not_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    hidden = result(before=None, after=None)
    assert hidden.figures()["broker_cpu_s"] is None
    assert hidden.figures()["broker_memory_mb"] is None
    show(hidden, json=False)
    text = capsys.readouterr().out
    assert "not visible" in text
    assert "broker CPU " in text
    assert "load from a client" in text


def test_settings_have_units_in_their_names_for_programs_and_behind_values_for_people(
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = {"size_bytes": 10_000_000, "linger_ms": 0.5, "rate_per_s": 1000.0, "in_flight": 5, "acks": "1"}
    assert result(settings=settings).figures()["settings"] == settings
    show(result(settings=settings), json=False)
    first = capsys.readouterr().out.splitlines()[0]
    assert first.endswith(": size 10000000 B, linger 0.5 ms, rate 1000/s, in flight 5, acks 1")


def test_a_run_without_messages_divides_by_nothing() -> None:
    figures = result(count=0, bytes_total=0, seconds=0.0).figures()
    assert figures["messages_per_s"] is None
    assert figures["broker_cpu_s_per_million"] is None


@pytest.mark.parametrize(("count", "size"), [(1, 1), (8192, 100), (3, 100_000), (10, 0)])
def test_values_have_the_size_asked_for(count: int, size: int) -> None:
    made = workers.values(count, size, seed=1)
    assert [len(value) for value in made] == [size] * count
    assert made == workers.values(count, size, seed=1)


def test_values_differ_and_compress_as_text_does() -> None:
    import zlib

    made = workers.values(8192, 100, seed=1)
    assert len(set(made)) > 8000
    plain = b"".join(made)
    assert 0.2 < len(zlib.compress(plain)) / len(plain) < 0.7


def test_a_listener_is_found_by_its_port_with_its_children() -> None:
    program = (
        "import socket, subprocess, sys, time\n"
        "listener = socket.create_server(('127.0.0.1', 0))\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(listener.getsockname()[1], child.pid, flush=True)\n"
        "sys.stdin.read()\n"
        "child.kill()\n"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        port, child = map(int, process.stdout.readline().split())
        assert processes.listeners([port]) == {process.pid}
        assert processes.with_children([process.pid]) == {process.pid, child}
        found = processes.usage([process.pid])
        assert found is not None
        assert found.memory_bytes > 5_000_000
        process.stdin.close()
        process.wait(60)
    assert processes.listeners([port]) == frozenset()
    assert processes.usage([process.pid]) is None


def test_cpu_seconds_grow_with_work() -> None:
    before = processes.usage([os.getpid()])
    until = time.process_time() + 0.1
    while time.process_time() < until:
        pass
    after = processes.usage([os.getpid()])
    assert before is not None
    assert after is not None
    assert after.cpu_s - before.cpu_s >= 0.08


def test_what_is_local() -> None:
    assert runner.is_local("127.0.0.1")
    assert runner.is_local("localhost")
    assert not runner.is_local("192.0.2.1")
    assert not runner.is_local("no-such-host.invalid")


def _work_of_no_time(load: object, barrier: Any, progress: Any, index: int) -> Any:
    barrier.wait(HANG_S)
    return load


def test_a_load_that_is_over_at_once_has_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    pools: list[ThreadPoolExecutor] = []
    shown: list[int] = []

    def pool(count: int, context: object, initializer: Any, initargs: Any) -> ThreadPoolExecutor:
        initializer(*initargs)
        pools.append(ThreadPoolExecutor(count))
        return pools[0]

    @contextmanager
    def progress(label: str, total: int) -> Iterator[Callable[[int], None]]:
        yield shown.append

    def usage(brokers: object) -> None:
        # What looks at the brokers takes longer than the load.
        pools[0].shutdown()

    monkeypatch.setattr(runner, "ProcessPoolExecutor", pool)
    monkeypatch.setattr(runner.output, "progress", progress)
    monkeypatch.setattr(runner.processes, "usage", usage)
    done = runner.run("Producing", [(_work_of_no_time, "done")], frozenset(), 1).done
    assert (done, shown) == (["done"], [0])


def test_the_produce_request_is_one() -> None:
    frame = raw.produce_request("t", 3, 10, 50, -1)
    assert struct.unpack_from(">i", frame)[0] == len(frame) - 4
    header = messages.read_header(frame, 4)
    assert (header.api_key, header.api_version) == (raw.PRODUCE, raw.PRODUCE_VERSION)
    request = messages.decode_request(header.api_key, header.api_version, frame, header.body_offset)
    assert request.acks == -1
    (partition,) = request.topic_data[0].partition_data
    assert partition.index == 3
    batch = records.check_batch(bytes(partition.records))
    assert batch.record_count == 10
    assert [len(r.value or b"") for r in records.iter_records(bytes(partition.records))] == [50] * 10


@pytest.mark.parametrize("topic", ["t", "a-longer-name"])
def test_the_error_is_where_it_is_looked_for(topic: str) -> None:
    partition = {"index": 0, "error_code": 77, "base_offset": 1, "record_errors": []}
    fields = {"responses": [{"name": topic, "partition_responses": [partition]}]}
    body = messages.encode_response(raw.PRODUCE, raw.PRODUCE_VERSION, fields)
    response = b"\0\0\0\1" + body
    assert raw.ERROR_CODE.unpack_from(response, raw.produce_error_position(topic))[0] == 77


@contextmanager
def server(respond: bytes, pieces: int) -> Iterator[int]:
    """Answers every request frame with ``respond``, cut into ``pieces``, on each of its connections."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket) -> None:
        answer = struct.pack(">i", len(respond)) + respond
        step = -(-len(answer) // pieces)
        # The client may go while we read or write: that is how its run ends.
        with suppress(OSError), connection, connection.makefile("rb") as stream:
            while head := stream.read(4):
                stream.read(struct.unpack(">i", head)[0])
                for start in range(0, len(answer), step):
                    connection.sendall(answer[start : start + step])
                    if pieces > 1:
                        time.sleep(0.0005)

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(60)


def run_raw(
    port: int, request: bytes, *, connections: int = 2, in_flight: int = 3, position: int = -1
) -> workers.Done:
    load = raw.RawLoad((("127.0.0.1", port, request),) * connections, in_flight, 0.3, 0.1, position)
    return raw.run(load, multiprocessing.Barrier(1), [0], 0)


@pytest.mark.parametrize("pieces", [1, 3])
def test_the_raw_client_counts_and_times_whole_responses(pieces: int) -> None:
    with server(b"\0\0\0\1" + b"x" * 20, pieces) as port:
        done = run_raw(port, raw.api_versions_request())
    assert done.error is None
    assert done.count == len(done.latencies_s) > 20
    assert done.failed == 0
    assert all(0 < latency < 5 for latency in done.latencies_s)
    assert done.bytes_total == done.count * len(raw.api_versions_request())


def test_a_request_larger_than_the_sockets_buffers_goes_out_whole() -> None:
    with server(b"\0\0\0\1ok", 1) as port:
        done = run_raw(port, raw.frame(0, 8, bytes(8_000_000)), connections=1, in_flight=2)
    assert done.error is None
    assert done.count > 0


def test_refused_requests_are_failures() -> None:
    response = b"\0\0\0\1" + struct.pack(">h", 3)
    with server(response, 1) as port:
        done = run_raw(port, raw.api_versions_request(), position=4)
    assert done.failed == done.count > 0
    assert done.error is not None
    assert "refused" in done.error


def close_the_first(listener: socket.socket) -> None:
    listener.accept()[0].close()


def test_a_broker_that_closes_is_said_so() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    with listener:
        threading.Thread(target=close_the_first, args=(listener,), daemon=True).start()
        done = run_raw(listener.getsockname()[1], raw.api_versions_request(), connections=1)
    assert done.error is not None


def test_files_that_cannot_be_put_out_of_memory_are_told_of(tmp_path: Path) -> None:
    here = tmp_path / "00000000000000000000.log"
    here.write_bytes(b"records")
    cold.forget([str(here)])
    assert here.read_bytes() == b"records"
    with pytest.raises(CliError, match="put out of memory: No such file"):
        cold.forget([str(here), str(tmp_path / "gone.log")])


def test_the_offset_is_in_a_fetch_once() -> None:
    request = cold.fetch_request("topic", 3)
    assert request.count(cold.MARKER.to_bytes(8, "big")) == 1


@pytest.mark.parametrize("transactional_id", ["a-producer", None])
def test_a_produce_of_one_message_is_whole_with_each_number(transactional_id: str | None) -> None:
    where = ("127.0.0.1", 9)
    load = single.SingleLoad(where, where, "t", 3, 50, 1.0, 0.1, transactional_id)
    made = single.ProduceRequest(load, 12, 77)
    for epoch, sequence in ((0, 0), (5, 70_000), (32_000, 1)):
        frame = bytes(made.numbered(epoch, sequence))
        header = messages.read_header(frame, 4)
        request = messages.decode_request(header.api_key, header.api_version, frame, header.body_offset)
        assert (request.transactional_id, request.acks) == (transactional_id, -1)
        batch = records.check_batch(bytes(request.topic_data[0].partition_data[0].records))
        assert (batch.producer_id, batch.producer_epoch, batch.base_sequence) == (77, epoch, sequence)
        assert batch.is_transactional is (transactional_id is not None)


@pytest.mark.parametrize(
    ("level", "end", "has"), [(2, 5, True), (1, 5, False), (2, 4, False), (None, 5, False)]
)
def test_a_client_speaks_the_protocol_that_the_cluster_has(level: int | None, end: int, has: bool) -> None:
    fields = {
        "error_code": 0,
        "throttle_time_ms": 0,
        "api_keys": [
            {"api_key": key, "min_version": 0, "max_version": last}
            for key, last in ((raw.PRODUCE, 12), (single.END_TXN, end))
        ],
    }
    if level is not None:
        feature = {"name": "transaction.version", "max_version_level": level, "min_version_level": level}
        fields["finalized_features"] = [feature]
    key, version = single.API_VERSIONS, single.API_VERSIONS_VERSION
    answer = messages.decode_response(key, version, messages.encode_response(key, version, fields))
    assert single.is_kip_890(answer) is has


def test_rows_of_transactions_are_medians_and_how_often_one_goes_into_the_other() -> None:
    row = transactions.Row.SINGLE
    runs = [{"p50_ms": ms, "messages_per_s": 100, "commit_p50_ms": 1.0, "other": 1} for ms in (9.0, 3.0, 6.0)]
    found = transactions.compared(row, runs, [{"p50_ms": 2.0, "messages_per_s": 400}])
    assert found == {
        "transactions": {"messages_per_s": 100, "p50_ms": 6.0, "commit_p50_ms": 1.0},
        "without": {"messages_per_s": 400, "p50_ms": 2.0},
        "ratio": {"messages_per_s": 0.25, "p50_ms": 3.0},
    }
