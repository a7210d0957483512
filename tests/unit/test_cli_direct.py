"""Plain connections: versions, silent brokers and what is said of them."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from measuring import HANG_S
from ottla.cli import direct
from ottla.cli.direct import DirectCluster, DirectConnection, Unanswered
from ottla.cli.errors import CliError, ExitCode
from ottla.errors import ErrorCode
from ottla.wire.messages import encode_response, read_header, response_header_flexible

UNREGISTER, METADATA, API_VERSIONS = 64, 3, 18
Answer = Callable[[int, int], dict[str, Any] | None]


class FakeBroker:
    """Answers requests with what ``answer`` makes of an API key and version; None: with nothing at all."""

    def __init__(self, answer: Answer, versions: dict[int, tuple[int, int]]) -> None:
        self._answer = answer
        self._versions = versions
        self.asked: list[int] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._listening.getsockname()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.address[1]}"

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        stream = connection.makefile("rb")
        with connection:
            while head := stream.read(4):
                header = read_header(stream.read(int.from_bytes(head, "big")))
                key, version = header.api_key, header.api_version
                self.asked.append(key)
                fields = self._fields(key, version)
                if fields is None:
                    continue
                body = struct.pack(">i", header.correlation_id)
                body += b"\0" * response_header_flexible(key, version) + encode_response(key, version, fields)
                connection.sendall(struct.pack(">i", len(body)) + body)

    def _fields(self, key: int, version: int) -> dict[str, Any] | None:
        if key == API_VERSIONS:
            keys = [
                {"api_key": k, "min_version": a, "max_version": b} for k, (a, b) in self._versions.items()
            ]
            return {"error_code": 0, "api_keys": keys}
        return self._answer(key, version)

    def close(self) -> None:
        self._listening.close()


Make = Callable[..., FakeBroker]
ALL = {UNREGISTER: (0, 0), METADATA: (0, 13)}


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    monkeypatch.setattr(direct, "READ_TIMEOUT_S", HANG_S)
    monkeypatch.setattr(direct, "RETRY_S", 0.5)
    monkeypatch.setattr(direct, "RETRY_STEP_S", 0.01)
    started: list[FakeBroker] = []

    def make(answer: Answer, versions: dict[int, tuple[int, int]] = ALL) -> FakeBroker:
        started.append(FakeBroker(answer, versions))
        return started[-1]

    yield make
    for one in started:
        one.close()


def metadata(*brokers: FakeBroker, controller: int = 0) -> dict[str, Any]:
    return {
        "throttle_time_ms": 0,
        "brokers": [
            {"node_id": i, "host": b.address[0], "port": b.address[1], "rack": None}
            for i, b in enumerate(brokers)
        ],
        "cluster_id": "c",
        "controller_id": controller,
        "topics": [],
        "cluster_authorized_operations": 0,
        "error_code": 0,
    }


METADATA_FIELDS = {
    "topics": None,
    "allow_auto_topic_creation": False,
    "include_topic_authorized_operations": False,
    "include_cluster_authorized_operations": False,
}
DONE = {"throttle_time_ms": 0, "error_code": 0, "error_message": None}


@pytest.mark.parametrize("newest", [1, 8, 9, 12, 13, 99])
def test_the_newest_version_that_both_know_is_used(broker: Make, newest: int) -> None:
    seen: list[int] = []

    def answer(key: int, version: int) -> dict[str, Any]:
        seen.append(version)
        return metadata()

    one = broker(answer, {METADATA: (0, newest)})
    connection = DirectConnection(one.address)
    assert connection.ask("Metadata", METADATA_FIELDS).controller_id == 0
    assert connection.ask("Metadata", METADATA_FIELDS).controller_id == 0
    connection.close()
    assert seen == [min(newest, 13)] * 2
    assert one.asked.count(API_VERSIONS) == 1


@pytest.mark.parametrize("versions", [{}, {UNREGISTER: (1, 2)}])
def test_a_request_that_the_broker_does_not_know_is_said(
    broker: Make, versions: dict[int, tuple[int, int]]
) -> None:
    one = broker(lambda key, version: None, versions)
    with pytest.raises(CliError, match="does not know UnregisterBroker requests"):
        DirectConnection(one.address).ask("UnregisterBroker", {"broker_id": 1})


def test_a_broker_that_hangs_is_passed_over_and_asked_last_from_then_on(
    broker: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_answer(key: int, version: int) -> None:
        # It has been given up soon; whoever is asked next may take his time.
        direct.READ_TIMEOUT_S = HANG_S

    monkeypatch.setattr(direct, "READ_TIMEOUT_S", 1.0)
    silent = broker(no_answer)
    well = broker(lambda key, version: metadata(silent, well) if key == METADATA else DONE)
    cluster = DirectCluster(f"{silent.bootstrap},{well.bootstrap}")
    cluster.learn(cluster.ask("Metadata", METADATA_FIELDS))
    asked = len(silent.asked)
    assert asked
    # It is the controller, and still the others are asked first.
    assert cluster.ask("UnregisterBroker", {"broker_id": 7}).error_code == 0
    assert len(silent.asked) == asked
    cluster.close()


def test_the_controller_is_asked_first(broker: Make) -> None:
    other = broker(
        lambda key, version: metadata(other, controller, controller=1) if key == METADATA else DONE
    )
    controller = broker(lambda key, version: DONE)
    cluster = DirectCluster(other.bootstrap)
    cluster.learn(cluster.ask("Metadata", METADATA_FIELDS))
    cluster.ask("UnregisterBroker", {"broker_id": 7})
    assert UNREGISTER in controller.asked
    assert UNREGISTER not in other.asked
    cluster.close()


def test_a_broker_that_has_gone_is_looked_for_again(broker: Make) -> None:
    well = broker(lambda key, version: metadata(well) if key == METADATA else DONE)
    cluster = DirectCluster(well.bootstrap)
    cluster.learn(cluster.ask("Metadata", METADATA_FIELDS))
    for connection in cluster._connections.values():
        connection._socket.shutdown(socket.SHUT_RDWR)
    assert cluster.ask("UnregisterBroker", {"broker_id": 7}).error_code == 0
    with pytest.raises(Unanswered, match="node 5 is not there"):
        cluster.ask_node(5, "UnregisterBroker", {"broker_id": 7})
    cluster.close()


def test_nobody_there_ends_with_the_reason() -> None:
    with pytest.raises(CliError, match="connection refused") as caught:
        DirectCluster("127.0.0.1:1").ask("Metadata", METADATA_FIELDS)
    assert caught.value.code is ExitCode.UNREACHABLE


def test_what_is_no_broker_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=lambda: server.accept()[0].sendall(b"HTTP/1.1 400\r\n"), daemon=True).start()
        with pytest.raises(CliError, match="does not answer: does it ask for TLS"):
            DirectCluster(f"127.0.0.1:{server.getsockname()[1]}").ask("Metadata", METADATA_FIELDS)


def test_errors_have_the_brokers_words_or_their_names() -> None:
    direct.check(0, None, "x")
    with pytest.raises(CliError, match=r"^t-0: no such thing$"):
        direct.check(3, "no such thing", "t-0")
    with pytest.raises(CliError, match=r"^t-0: unknown topic or partition$"):
        direct.check(3, None, "t-0")
    assert direct.error_name(31_000) == "error 31000"
    assert direct.error_name(int(ErrorCode.election_not_needed)) == "election not needed"
