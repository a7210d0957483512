"""Clients that take too much: connections, unread responses, piled-up requests, the whole disk."""

from __future__ import annotations

import contextlib
import re
import resource
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer

from interop.bystander import Bystander
from interop.process import BrokerProcess, wait_until
from interop.raw import RawClient, batch, fetch_fields, framed, produce_fields, request_header
from ottla.broker.memory import UNSENT_BYTES_MAX
from ottla.env.memory import KEEP_BYTES_MAX
from ottla.errors import ErrorCode

MB = 1 << 20


@contextlib.contextmanager
def open_files(count: int) -> Iterator[None]:
    """Let this process have `count` files open at once."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, max(hard, count)))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_five_thousand_connections(ottla_process: Callable[..., BrokerProcess]) -> None:
    """All are served, each costs little, and a client that was there before goes on undisturbed."""
    broker = ottla_process(files_max=12_000)
    host, port = broker.bootstrap.split(":")
    request = framed(request_header(18, 0))
    before = broker.rss_bytes()
    sockets: list[socket.socket] = []
    with open_files(6000), Bystander(broker.bootstrap) as other:
        try:
            for _ in range(5000):
                sockets.append(socket.create_connection((host, int(port)), 30))
            wait_until(lambda: broker.connections() > 5000, what="all are accepted")
            for sock in sockets:
                sock.sendall(request)
            for sock in sockets:
                head = sock.recv(10)
                assert head[4:10] == struct.pack(">ih", 1, 0)
            assert broker.rss_bytes() - before < 150 * MB
            rounds = other.rounds
            wait_until(lambda: other.rounds > rounds + 20, what="the bystander goes on")
        finally:
            for sock in sockets:
                sock.close()
        wait_until(lambda: broker.connections() < 20, what="all are gone")
    assert "Traceback" not in broker.log()


def test_connections_beyond_the_file_limit(ottla_process: Callable[..., BrokerProcess]) -> None:
    """Some file descriptors are left to what is not a connection, be it the first use of an API, whose module
    is loaded then, or a new log; and new connections are accepted again when there is room."""
    broker = ottla_process(files_max=256)
    host, port = broker.bootstrap.split(":")
    with Bystander(broker.bootstrap) as other, RawClient(broker.bootstrap) as client:
        sockets = []
        for _ in range(400):
            with contextlib.suppress(OSError):
                sockets.append(socket.create_connection((host, int(port)), 5))
        rounds = other.rounds
        wait_until(lambda: other.rounds > rounds + 20, what="the bystander goes on")
        assert client.call("ListGroups").error_code == 0
        assert client.create_topic("new", 10).error_code == 0
        assert client.produce("new", batch(b"v"), partition=9).error_code == 0
        assert broker.log().count("connection refused, too few file descriptors") == 1
        assert "Too many open files" not in broker.log()
        for sock in sockets:
            sock.close()

        def serves() -> bool:
            try:
                with RawClient(broker.bootstrap, 2.0) as client:
                    return client.call("ApiVersions", 0).error_code == 0
            except OSError:
                return False

        wait_until(serves, what="new connections are served again")


def test_max_connections(ottla_process: Callable[..., BrokerProcess]) -> None:
    """max.connections.per.ip refuses the next one, and only that."""
    broker = ottla_process({"max.connections.per.ip": "10"})
    clients = [RawClient(broker.bootstrap) for _ in range(10)]
    for client in clients:
        assert client.call("ApiVersions", 0).error_code == 0
    with RawClient(broker.bootstrap) as late:
        assert late.closed()
    clients.pop().socket.close()

    def admitted() -> bool:
        with RawClient(broker.bootstrap) as again, contextlib.suppress(OSError):
            return again.call("ApiVersions", 0).error_code == 0
        return False

    wait_until(admitted, what="there is room again")
    for client in clients:
        assert client.call("ApiVersions", 0).error_code == 0
        client.socket.close()


def test_consumers_that_do_not_read(ottla_process: Callable[..., BrokerProcess]) -> None:
    """Forty consumers ask for 50 MB each, again and again, and read none of it."""
    broker = ottla_process()
    with RawClient(broker.bootstrap) as client:
        assert client.create_topic("big", 1).error_code == 0
        for _ in range(64):
            assert client.produce("big", batch(bytes(MB - 1000))).error_code == 0
    before = broker.rss_bytes()
    stalled = []
    with Bystander(broker.bootstrap) as other:
        for _ in range(40):
            client = RawClient(broker.bootstrap)
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.send(client.frame("Fetch", 12, fetch_fields("big", 0, max_bytes=50 * MB)) * 20)
            stalled.append(client)
        rounds = other.rounds
        wait_until(lambda: other.rounds > rounds + 200, what="the bystander goes on")
        # Answers not sent, and the one that passes that limit; what was freed and is kept for use again.
        limit = UNSENT_BYTES_MAX + 50 * MB + KEEP_BYTES_MAX
        assert broker.rss_bytes() - before < limit + 20 * MB
        for client in stalled:
            client.socket.close()
        wait_until(lambda: broker.rss_bytes() - before < 180 * MB, what="the memory is given back")


def test_a_consumer_that_reads_late_gets_everything(ottla_process: Callable[..., BrokerProcess]) -> None:
    """Back-pressure loses nothing: twenty pipelined fetches, read after the broker had to stop writing."""
    broker = ottla_process()
    with RawClient(broker.bootstrap) as client:
        assert client.create_topic("big", 1).error_code == 0
        for _ in range(8):
            assert client.produce("big", batch(bytes(MB - 1000))).error_code == 0
        frames = [client.frame("Fetch", 12, fetch_fields("big", 0, max_bytes=8 * MB), i) for i in range(20)]
        client.send(b"".join(frames))
        with Bystander(broker.bootstrap) as other:
            wait_until(lambda: other.rounds > 100, what="the bystander goes on")
        for i in range(20):
            answer = client.answer("Fetch", 12, i).responses[0].partitions[0]
            assert answer.error_code == 0
            assert len(answer.records) > 7 * MB


def test_requests_piled_up_behind_one_that_waits(ottla_process: Callable[..., BrokerProcess]) -> None:
    """While a long poll waits, a client sends 1 GB more: the broker stops reading, as TCP will tell."""
    broker = ottla_process()
    with RawClient(broker.bootstrap) as client:
        assert client.create_topic("t", 1).error_code == 0
        before = broker.rss_bytes()
        client.send(client.frame("Fetch", 12, fetch_fields("t", 0, max_wait_ms=20_000, min_bytes=1000)))
        large = client.frame("Produce", 9, produce_fields("t", bytes(50 * MB)))
        client.socket.settimeout(2.0)
        with Bystander(broker.bootstrap) as other:
            with contextlib.suppress(TimeoutError):
                for _ in range(20):
                    client.send(large)
            rounds = other.rounds
            wait_until(lambda: other.rounds > rounds + 50, what="the bystander goes on")
            assert broker.rss_bytes() - before < 250 * MB


def test_large_answers_behind_one_that_waits(ottla_process: Callable[..., BrokerProcess]) -> None:
    """A Produce waits for the disk, and behind it, in one piece, come hundreds of Fetches of 10 MB each."""
    broker = ottla_process()
    with RawClient(broker.bootstrap) as client:
        assert client.create_topic("large", 1).error_code == 0
        assert client.create_topic("synced", 1, flush_messages="1").error_code == 0
        for _ in range(12):
            assert client.produce("large", batch(bytes(900_000))).error_code == 0
        before = broker.rss_bytes()
        fetch = client.frame("Fetch", 12, fetch_fields("large", 0, max_bytes=10 * MB))
        with Bystander(broker.bootstrap) as other:
            client.send(client.frame("Produce", 9, produce_fields("synced", batch(b"v"))) + fetch * 200)
            rounds = other.rounds
            wait_until(lambda: other.rounds > rounds + 50, what="the bystander goes on")
            assert broker.rss_bytes() - before < 100 * MB


# A broker that looks every two seconds, not every ten, for who keeps others waiting.
IMPATIENT = (
    "from ottla.broker import server; server.PRESSURE_MS = 2_000; from ottla.cli import main; main.main()"
)


@pytest.fixture
def impatient_broker(tmp_path: Path) -> Iterator[BrokerProcess]:
    limits = {"queued.max.request.bytes": str(100 * MB), "socket.request.max.bytes": str(50 * MB)}
    broker = BrokerProcess(tmp_path / "broker", limits)
    broker.program = ("-c", IMPATIENT)
    try:
        yield broker.start()
    finally:
        if broker.alive():
            broker.stop()
        print(broker.log())


def test_many_requests_that_are_never_whole(impatient_broker: BrokerProcess) -> None:
    """Sixty clients send half of 8 MB each where 100 MB are allowed: not much more is taken of them."""
    broker = impatient_broker
    before = broker.rss_bytes()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(RawClient(broker.bootstrap)) for _ in range(60)]
        half = clients[0].frame("Produce", 9, produce_fields("t", bytes(8 * MB)))[: 4 * MB]
        with Bystander(broker.bootstrap) as other:
            for client in clients:
                client.socket.settimeout(0.05)
                with contextlib.suppress(TimeoutError):
                    client.send(half)
            rounds = other.rounds
            wait_until(lambda: other.rounds > rounds + 50, what="the bystander goes on")
            assert broker.rss_bytes() - before < 150 * MB
        # Those who keep the others waiting are closed.
        wait_until(lambda: "keeps others waiting" in broker.log(), 40, what="one is closed")


def test_fifty_large_requests_at_once(ottla_process: Callable[..., BrokerProcess]) -> None:
    """Memory goes with the bytes that are under way, and is used again."""
    broker = ottla_process({"message.max.bytes": str(6 * MB)})
    with RawClient(broker.bootstrap) as client:
        assert client.create_topic("t", 1).error_code == 0
    before = broker.rss_bytes()
    data = batch(bytes(4 * MB))
    with Bystander(broker.bootstrap):
        for _ in range(3):
            clients = [RawClient(broker.bootstrap) for _ in range(50)]
            frame = clients[0].frame("Produce", 9, produce_fields("t", data))
            for client in clients:
                client.send(frame[: len(frame) // 2])
            for client in clients:
                client.send(frame[len(frame) // 2 :])
                assert client.answer("Produce", 9, 1).responses[0].partition_responses[0].error_code == 0
            assert broker.rss_bytes() - before < 500 * MB
            for client in clients:
                client.socket.close()
            wait_until(lambda: broker.connections() < 20, what="all are gone")
            assert broker.rss_bytes() - before < KEEP_BYTES_MAX + 50 * MB


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MB."""
    where = tmp_path / "disk"
    where.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(where)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting is not permitted here; the test with a limit on files stands in for it")
    try:
        yield where
    finally:
        subprocess.run(["umount", "-l", str(where)], check=True)


def fill_and_free(broker: BrokerProcess, free: Callable[[], object]) -> None:
    """Produce until it fails, check what goes on meanwhile, make room, and check that nothing is lost."""
    acknowledged: list[bytes] = []
    with RawClient(broker.bootstrap) as client:

        def send() -> int:
            value = b"%d " % len(acknowledged) + bytes(100_000)
            code = int(client.produce("t", batch(value)).error_code)
            if code == 0:
                acknowledged.append(value)
            return code

        while (code := send()) == 0:
            assert len(acknowledged) < 1000
        assert code == ErrorCode.kafka_storage_error
        for _ in range(20):
            assert send() in (0, ErrorCode.kafka_storage_error)
        assert client.values("t") == acknowledged
        # The other requests are answered while the disk is full.
        client.create_topic("u", 1)
        assert client.call("ApiVersions", 0).error_code == 0
        free()
        wait_until(lambda: send() == 0, what="serving resumes")
        for _ in range(20):
            assert send() == 0
        assert client.values("t") == acknowledged
    broker.kill()
    broker.start()
    with RawClient(broker.bootstrap) as client:
        assert client.values("t") == acknowledged
        assert send_one(client) == len(acknowledged)


def test_full_disk(ottla_process: Callable[..., BrokerProcess], small_disk: Path) -> None:
    """Produce fails with KAFKA_STORAGE_ERROR, fetching goes on, and space heals it; nothing is lost."""
    broker = ottla_process({"log.segment.bytes": str(MB)}, data=small_disk / "data")
    with RawClient(broker.bootstrap) as client:
        assert client.create_topic("t", 1).error_code == 0
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(8 * MB))
    fill_and_free(broker, ballast.unlink)


def test_files_that_may_not_grow(ottla_process: Callable[..., BrokerProcess]) -> None:
    """The same by a limit on the size of the broker's files, which needs no right to mount."""
    broker = ottla_process(file_size_max=5 * MB)
    with RawClient(broker.bootstrap) as client:
        assert client.create_topic("t", 1).error_code == 0

    def free() -> None:
        subprocess.run(["prlimit", "--pid", str(broker.pid), "--fsize=unlimited"], check=True)
        broker.file_size_max = None

    fill_and_free(broker, free)


def test_a_producer_outlasts_a_full_disk(ottla_process: Callable[..., BrokerProcess]) -> None:
    """librdkafka retries KAFKA_STORAGE_ERROR: once there is room, all is there once and in order."""
    broker = ottla_process(file_size_max=3 * MB)
    failures: list[object] = []
    config = {
        "enable.idempotence": True,
        "message.timeout.ms": 60_000,
        "retry.backoff.ms": 50,
        "log_level": 0,
    }
    producer = Producer({"bootstrap.servers": broker.bootstrap, "batch.num.messages": 20, **config})
    for i in range(1000):
        producer.produce("t", b"%d " % i + bytes(5000), on_delivery=lambda error, _: failures.append(error))
    wait_until(lambda: producer.flush(0.1) < 1000, what="some are delivered")
    with RawClient(broker.bootstrap) as client:
        wait_until(
            lambda: client.produce("t", batch(bytes(MB - 1000))).error_code == ErrorCode.kafka_storage_error,
            what="the disk is full",
        )
        stored = len(client.values("t"))
        subprocess.run(["prlimit", "--pid", str(broker.pid), "--fsize=unlimited"], check=True)
        assert producer.flush(40) == 0
        assert failures == [None] * 1000
        numbers = [int(value.split(b" ")[0]) for value in client.values("t") if value and value[0]]
        assert numbers == list(range(1000))
        assert stored < 1000


def send_one(client: RawClient) -> int:
    answer = client.produce("t", batch(b"after"))
    assert answer.error_code == 0
    return int(answer.base_offset)


def test_start_on_a_full_disk(ottla_process: Callable[..., BrokerProcess], small_disk: Path) -> None:
    """A broker that was killed on a full disk starts on it, or says why not; with space it serves all."""
    broker = ottla_process({"log.segment.bytes": str(MB)}, data=small_disk / "data")
    count = 0
    with RawClient(broker.bootstrap) as client:
        assert client.create_topic("t", 1).error_code == 0
        while client.produce("t", batch(bytes(200_000))).error_code == 0:
            count += 1
    broker.kill()
    with contextlib.suppress(OSError), (small_disk / "ballast").open("wb") as ballast:
        while True:
            ballast.write(bytes(4096))
    try:
        broker.start()
        with RawClient(broker.bootstrap) as client:
            assert len(client.values("t")) == count
        broker.kill()
    except AssertionError as failure:
        assert re.search("disk is full|No space left", str(failure))
        assert "Traceback" not in str(failure)
        broker.process = None
    (small_disk / "ballast").unlink()
    broker.start()
    with RawClient(broker.bootstrap) as client:
        assert len(client.values("t")) == count
        freed = client.call(
            "DeleteRecords",
            topics=[{"name": "t", "partitions": [{"partition_index": 0, "offset": -1}]}],
            timeout_ms=5000,
        )
        assert freed.topics[0].partitions[0].error_code == 0
