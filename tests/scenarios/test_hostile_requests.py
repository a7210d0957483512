"""Requests that lie or make no sense: Kafka's error code or a closed connection, and the broker goes on."""

from __future__ import annotations

import functools
import socket
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest

from interop.bystander import Bystander
from interop.fuzz import Awkward
from interop.process import BrokerProcess, wait_until
from interop.raw import RawClient, batch, fetch_fields, flexible, framed, produce_fields, request_header
from ottla.errors import ErrorCode
from ottla.wire.apis import API_VERSIONS, APIS, BY_NAME
from ottla.wire.messages import decode_response, encode_request
from ottla.wire.primitives import write_uvarint

LONGEST = struct.pack(">i", 2**31 - 1)
LONGEST_COMPACT = b"\xff\xff\xff\xff\x0f"
EDGES = sorted({(api.key, v) for api in APIS.values() for v in (api.version_min, api.version_max)})


@pytest.fixture(scope="module")
def broker(ottla_process_module: Callable[..., BrokerProcess]) -> BrokerProcess:
    return ottla_process_module({"auto.create.topics.enable": "false"})


@pytest.fixture
def client(broker: BrokerProcess) -> Iterator[RawClient]:
    with RawClient(broker.bootstrap) as connection:
        yield connection


def throw(broker: BrokerProcess, payloads: list[bytes], wait_s: float = 0.5) -> None:
    """Send each payload over a connection of its own, many at a time, and let the broker react."""
    host, port = broker.bootstrap.split(":")
    for start in range(0, len(payloads), 100):
        sockets = []
        for payload in payloads[start : start + 100]:
            sock = socket.create_connection((host, int(port)), 10)
            sock.sendall(framed(payload))
            sock.settimeout(0.0)
            sockets.append(sock)
        deadline = time.monotonic() + wait_s
        waiting = list(sockets)
        while waiting and time.monotonic() < deadline:
            waiting = [sock for sock in waiting if not _reacted(sock)]
        for sock in sockets:
            sock.close()


def _reacted(sock: socket.socket) -> bool:
    try:
        sock.recv(65536)
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
    return True


@pytest.mark.parametrize(("key", "version"), EDGES)
def test_lengths_that_lie(broker: BrokerProcess, key: int, version: int) -> None:
    """Wherever in a request a length might stand, the largest there is."""
    before = broker.rss_bytes()
    is_flexible = flexible(key, version)
    header = request_header(key, version, flexible=is_flexible)
    body = encode_request(key, version, Awkward(1, []).request(key, version))
    lie = LONGEST_COMPACT if is_flexible else LONGEST
    payloads = [header + body[:i] + lie + body[i + len(lie) :] for i in range(min(len(body), 150) + 1)]
    payloads += [header + body[:i] + lie * 50 for i in range(min(len(body), 30) + 1)]
    payloads += [header + body[:i] for i in range(min(len(body), 100))]
    with Bystander(broker.bootstrap):
        throw(broker, payloads, 0.2)
    assert broker.rss_bytes() - before < 50_000_000
    assert "Traceback" not in broker.log()


@pytest.mark.parametrize("key", sorted(APIS))
def test_awkward_requests(broker: BrokerProcess, client: RawClient, key: int) -> None:
    """Well-formed requests with nonsense in them are answered or refused; none of them is a surprise."""
    api = APIS[key]
    for topic in ("t", "u"):
        assert client.create_topic(topic, 2).error_code in (0, ErrorCode.topic_already_exists)
    topics = client.call(
        "Metadata",
        12,
        topics=[{"topic_id": UUID(int=0), "name": "t"}],
        allow_auto_topic_creation=False,
        include_topic_authorized_operations=False,
    )
    awkward = Awkward(key, [topic.topic_id for topic in topics.topics])
    payloads = []
    for i in range(240):
        version = api.version_max - i % (api.version_max - api.version_min + 1)
        header = request_header(key, version, flexible=flexible(key, version))
        payloads.append(header + encode_request(key, version, awkward.request(key, version)))
    before = len(broker.log())
    with Bystander(broker.bootstrap):
        throw(broker, payloads, 0.3)
    assert "Traceback" not in broker.log()[before:]


@pytest.mark.parametrize("key", [4, 5, 6, 7, 52, 68, 76, 90, 100, 1000, 32767, -1, -32768])
def test_unknown_api_keys(broker: BrokerProcess, key: int) -> None:
    """Keys of other APIs of Kafka's, of none, and of those that only brokers send one another."""
    with Bystander(broker.bootstrap), RawClient(broker.bootstrap) as client:
        client.send(framed(request_header(key, 0) + bytes(20)))
        assert client.closed()


@pytest.mark.parametrize("key", sorted(set(APIS) - {API_VERSIONS}))
def test_unsupported_versions_close_the_connection(broker: BrokerProcess, key: int) -> None:
    api = APIS[key]
    for version in {api.version_min - 1, api.version_max + 1, -1, 32767}:
        with RawClient(broker.bootstrap) as client:
            client.send(framed(request_header(key, version) + bytes(20)))
            assert client.closed()


@pytest.mark.parametrize("version", [6, 100, 32767, -1])
def test_api_versions_of_the_future(client: RawClient, version: int) -> None:
    """KIP-511: a version 0 answer with UNSUPPORTED_VERSION that tells which versions there are."""
    client.send(framed(request_header(API_VERSIONS, version, 9) + b"\0\x05some\x041.0\0"))
    payload = client.receive()
    assert payload[:4] == struct.pack(">i", 9)
    answer = decode_response(API_VERSIONS, 0, payload, 4)
    assert answer.error_code == ErrorCode.unsupported_version
    listed = {entry.api_key: (entry.min_version, entry.max_version) for entry in answer.api_keys}
    assert listed[API_VERSIONS] == (0, 5)
    # The connection goes on.
    assert (
        client.call("ApiVersions", 3, client_software_name="raw", client_software_version="1").error_code == 0
    )


@pytest.mark.parametrize(
    ("name", "version"), [("", "1"), ("raw", ""), ("ra w", "1"), ("raw", "1/2"), ("-raw", "1")]
)
def test_api_versions_with_a_bad_software_name(client: RawClient, name: str, version: str) -> None:
    answer = client.call("ApiVersions", 3, client_software_name=name, client_software_version=version)
    assert answer.error_code == ErrorCode.invalid_request


def test_unknown_topics_and_partitions(client: RawClient, name: str) -> None:
    unknown = ErrorCode.unknown_topic_or_partition
    assert client.create_topic(name, 2).error_code == 0
    for topic, partition in [
        ("none", 0),
        (name, 2),
        (name, -1),
        (name, 2**31 - 1),
        ("", 0),
        ("..", 0),
        ("a/b", 0),
    ]:
        assert client.produce(topic, batch(b"v"), partition=partition).error_code == unknown
        assert client.fetch(topic, 0, partition=partition).error_code == unknown
        listed = client.call(
            "ListOffsets",
            7,
            replica_id=-1,
            isolation_level=0,
            topics=[
                {
                    "name": topic,
                    "partitions": [
                        {"partition_index": partition, "current_leader_epoch": -1, "timestamp": -1}
                    ],
                }
            ],
        )
        assert listed.topics[0].partitions[0].error_code == unknown
        deleted = client.call(
            "DeleteRecords",
            topics=[{"name": topic, "partitions": [{"partition_index": partition, "offset": 0}]}],
            timeout_ms=1000,
        )
        assert deleted.topics[0].partitions[0].error_code == unknown
    assert client.values(name, partition=1) == []


def test_unknown_topic_ids(client: RawClient) -> None:
    strange = UUID(int=99)
    fields = produce_fields("", batch(b"v"))
    fields["topic_data"][0]["topic_id"] = strange
    assert (
        client.call("Produce", 13, **fields).responses[0].partition_responses[0].error_code
        == ErrorCode.unknown_topic_id
    )
    fetch = fetch_fields("")
    fetch["topics"][0]["topic_id"] = strange
    assert (
        client.call("Fetch", 16, **fetch).responses[0].partitions[0].error_code == ErrorCode.unknown_topic_id
    )


BAD_NAMES = ["", ".", "..", "../etc", "a/b", "/", "a\\b", "a b", "a:b", "a\0b", "\u2603", "x" * 250, "a\n"]


@pytest.mark.parametrize("bad", BAD_NAMES, ids=lambda bad: f"{bad[:8]!r}-{len(bad)}")
def test_bad_topic_names(broker: BrokerProcess, client: RawClient, bad: str) -> None:
    """Neither created nor auto-created, and never a path on the disk."""
    before = sorted(path.name for path in broker.data.rglob("*") if path.is_dir())
    assert client.create_topic(bad).error_code == ErrorCode.invalid_topic_exception
    for version in (1, 4, 9, 12):
        topics = [{"topic_id": UUID(int=0), "name": bad}]
        answer = client.call(
            "Metadata",
            version,
            topics=topics,
            allow_auto_topic_creation=True,
            include_cluster_authorized_operations=False,
            include_topic_authorized_operations=False,
        )
        assert [topic.error_code for topic in answer.topics] == [ErrorCode.invalid_topic_exception]
    assert sorted(path.name for path in broker.data.rglob("*") if path.is_dir()) == before


def test_the_longest_good_name(broker: BrokerProcess, client: RawClient) -> None:
    long = "y" * 249
    assert client.create_topic(long).error_code == 0
    assert client.produce(long, batch(b"v")).error_code == 0
    assert client.values(long) == [b"v"]


def test_names_that_collide(client: RawClient, name: str) -> None:
    """'.' and '_' look the same in metric names."""
    assert client.create_topic(f"{name}.a_b").error_code == 0
    assert client.create_topic(f"{name}_a.b").error_code == ErrorCode.invalid_topic_exception


@pytest.mark.parametrize("bad", ["", "g" * 40_00])
def test_awkward_group_names(client: RawClient, bad: str) -> None:
    """An empty group id is refused where members join; a long one is as good as any."""
    client.call("FindCoordinator", 4, key_type=0, coordinator_keys=[bad])
    answer = client.call(
        "JoinGroup",
        5,
        group_id=bad,
        session_timeout_ms=10_000,
        rebalance_timeout_ms=10_000,
        member_id="",
        group_instance_id=None,
        protocol_type="consumer",
        protocols=[{"name": "range", "metadata": b""}],
    )
    expected = ErrorCode.member_id_required if bad else ErrorCode.invalid_group_id
    assert answer.error_code == expected


def test_names_cannot_forge_lines_of_the_log(broker: BrokerProcess, client: RawClient) -> None:
    group = "g\n2026-01-01 00:00:00,000 ERROR   ottla: forged \x1b[31m"
    client.call("FindCoordinator", 4, key_type=0, coordinator_keys=[group])
    fields = {"group_id": group, "session_timeout_ms": 6000, "member_id": "", "protocol_type": "consumer"}
    answer = client.call("JoinGroup", 0, **fields, protocols=[{"name": "range", "metadata": b""}])
    assert answer.error_code == 0
    told = wait_until(lambda: broker.lines_with("forged"), what="a line in the log")
    assert not [line for line in told if line.startswith("2026-01-01")]
    assert "\x1b" not in broker.log()


def test_thousands_of_partitions_in_one_request(broker: BrokerProcess, client: RawClient) -> None:
    """A Fetch and a Metadata request that name as many things that do not exist as may be are answered in
    full."""
    fields = fetch_fields("none")
    one = fields["topics"][0]["partitions"][0]
    count = BY_NAME["Fetch"].elements_max - 1
    fields["topics"][0]["partitions"] = [{**one, "partition": i} for i in range(count)]
    with Bystander(broker.bootstrap):
        answer = client.call("Fetch", 12, **fields)
        assert len(answer.responses[0].partitions) == count
        described = client.call("Metadata", 12, **metadata_fields(BY_NAME["Metadata"].elements_max))
        assert len(described.topics) == BY_NAME["Metadata"].elements_max


def metadata_fields(topics: int) -> dict[str, Any]:
    return {
        "topics": [{"topic_id": UUID(int=0), "name": f"none-{i}"} for i in range(topics)],
        "allow_auto_topic_creation": False,
        "include_topic_authorized_operations": False,
    }


def test_requests_beyond_the_limits_of_their_api(ottla_process: Callable[..., BrokerProcess]) -> None:
    """Too many elements, or a size that is refused before it is received: closed, with one line.

    On a broker of its own: the others' log has had so many lines of that kind that it leaves some out.
    """
    broker = ottla_process()
    heartbeat = struct.pack(">i", 100_000_000) + request_header(BY_NAME["Heartbeat"].key, 4, flexible=True)
    with Bystander(broker.bootstrap):
        for told, data in [
            ("Heartbeat of 100000000 bytes", heartbeat),
            ("Metadata v12: 100000 elements more", None),
            ("DescribeGroups v0: 500000 elements more", None),
        ]:
            memory = broker.rss_bytes()
            with RawClient(broker.bootstrap) as client:
                if data is None and "Metadata" in told:
                    data = client.frame("Metadata", 12, metadata_fields(100_000))
                elif data is None:
                    data = client.frame("DescribeGroups", 0, {"groups": [""] * 500_000})
                client.send(data)
                assert client.closed()
            (line,) = wait_until(functools.partial(broker.lines_with, told), what=told)
            assert "closing the connection" in line
            assert broker.rss_bytes() - memory < 20_000_000


@pytest.mark.parametrize("count", [32_767, 32_768, 40_000])
def test_a_name_that_no_answer_could_carry(broker: BrokerProcess, client: RawClient, count: int) -> None:
    """A group's id of 40,000 bytes would break ListGroups for everybody; the longest there is does not."""
    client.call("FindCoordinator", 4, key_type=0, coordinator_keys=["g"])
    mark = "marked" * 30
    fields = {
        "group_id": mark,
        "session_timeout_ms": 10_000,
        "rebalance_timeout_ms": 10_000,
        "member_id": "",
        "group_instance_id": None,
        "protocol_type": "consumer",
        "protocols": [{"name": "range", "metadata": b""}],
    }
    header = request_header(BY_NAME["JoinGroup"].key, 6, flexible=True)
    body = encode_request(BY_NAME["JoinGroup"].key, 6, fields)
    long = body.replace(write_uvarint(len(mark) + 1) + mark.encode(), write_uvarint(count + 1) + b"g" * count)
    with RawClient(broker.bootstrap) as other:
        other.send(framed(header + long))
        if count > 32_767:
            assert other.closed()
        else:
            assert other.answer("JoinGroup", 6, 1).error_code == ErrorCode.member_id_required
    for version in (0, 2, 5):
        assert client.call("ListGroups", version, states_filter=[], types_filter=[]).error_code == 0


def test_too_many_partitions(broker: BrokerProcess, client: RawClient, name: str) -> None:
    """Kafka creates at most 10,000 partitions by one request (KIP-966's batch limit): the rest is refused."""
    answer = client.create_topic(name, 2**31 - 1)
    assert answer.error_code in (ErrorCode.policy_violation, ErrorCode.invalid_partitions)
    assert "Traceback" not in broker.log()
