"""The control port: what it offers, who may use it, and what a request may cost."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from hypothesis import given
from hypothesis import strategies as st

from measuring import cpu_at_most
from ottla.node import StartError
from ottla.observe.hosts import is_this_machine
from ottla.observe.request import Request
from ottla.testing import Broker
from ottla.testing.control import contents, endpoints, faults, server
from ottla.testing.control.errors import ControlError, meant
from ottla.testing.control.fields import Fields, from_body, from_query
from ottla.testing.control.guard import check
from ottla.testing.control.values import from_bytes, to_bytes
from ottla.testing.names import nearest

DOCS = Path(__file__).parents[2] / "docs"
JSON = {"Content-Type": "application/json"}


class Said(NamedTuple):
    status: int
    body: Any
    headers: dict[str, str]

    @property
    def code(self) -> str:
        return str(self.body["error"]["code"])

    @property
    def message(self) -> str:
        return str(self.body["error"]["message"])


class Client:
    """A program in any language."""

    def __init__(self, address: str, **headers: str) -> None:
        self._address = address
        self._headers = JSON | headers

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> Said:
        connection = http.client.HTTPConnection(self._address, timeout=120)
        try:
            data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
            connection.request(method, path, data, self._headers | headers)
            answer = connection.getresponse()
            assert answer.getheader("Content-Type") == "application/json"
            return Said(answer.status, json.loads(answer.read()), dict(answer.getheaders()))
        finally:
            connection.close()


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with Broker(control=True) as broker:
        yield broker


@pytest.fixture
def client(broker: Broker) -> Iterator[Client]:
    broker.faults.forget()
    yield Client(broker.control_address)
    broker.faults.clear()


@pytest.fixture
def topic(broker: Broker, request: pytest.FixtureRequest) -> str:
    name = re.sub(r"[^A-Za-z0-9]+", "-", request.node.name)[:100]
    broker.create_topic(name, 2)
    return name


def test_the_program_in_node_that_is_run_is_the_one_of_the_page() -> None:
    page = (DOCS / "CONTROL.md").read_text()
    function = page[page.index("async function broker(") : page.index("await broker(")]
    assert function in (Path(__file__).parents[1] / "interop" / "node" / "control.mjs").read_text()


# ------------------------------------------------------------ faults and requests


def test_a_fault_is_met_by_a_client_and_counted(broker: Broker, client: Client, topic: str) -> None:
    fault = {"fault": "fail", "api": "Produce", "error": "NOT_ENOUGH_REPLICAS", "topic": topic, "times": 2}
    made = client("POST", "/v1/faults", fault)
    assert made.status == 201
    assert made.body["apis"] == ["Produce"]
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "retry.backoff.ms": 1})
    producer.produce(topic, b"v")
    assert producer.flush(20) == 0
    seen = client("POST", "/v1/requests/wait", {"api": "Produce", "topic": topic, "count": 3}).body
    assert seen["count"] == 3
    assert [one["fault"] and one["fault"]["error"] for one in seen["requests"]] == [
        "NOT_ENOUGH_REPLICAS",
        "NOT_ENOUGH_REPLICAS",
        None,
    ]
    assert seen["requests"][0]["fields"]["acks"] == -1
    ended = client("GET", f"/v1/faults/{made.body['id']}").body
    assert (ended["hits"], ended["times_left"], ended["ended"]) == (2, 0, True)
    assert client("GET", "/v1/faults").body == {"faults": [], "left_off": 0}
    assert len(broker.records(topic)) == 1


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ({"fault": "delay", "ms": 5, "client_id": "slow-*"}, {"ms": 5, "client_id": "slow-*", "apis": None}),
        ({"fault": "drop", "api": ["Produce", "Fetch"]}, {"apis": ["Fetch", "Produce"], "after": False}),
        ({"fault": "drop", "api": "Produce", "after": True}, {"after": True}),
        ({"fault": "refuse_connections", "times": 3}, {"times_left": 3}),
        ({"fault": "hold_markers", "topic": "a*"}, {"topic": "a*"}),
        ({"fault": "fail", "error": 19}, {"error": "NOT_ENOUGH_REPLICAS"}),
    ],
)
def test_each_kind_of_fault_is_begun_listed_and_ended(
    broker: Broker, client: Client, asked: dict[str, Any], shown: dict[str, Any]
) -> None:
    made = client("POST", "/v1/faults", asked)
    assert made.status == 201, made
    assert made.body.items() >= (shown | {"fault": asked["fault"], "hits": 0, "ended": False}).items()
    assert client("GET", "/v1/faults").body["faults"] == [made.body]
    assert len(broker.faults.rules) == 1
    assert client("DELETE", f"/v1/faults/{made.body['id']}").body["ended"] is True
    assert broker.faults.rules == ()


def test_faults_of_python_are_listed_and_ended_as_well(broker: Broker, client: Client) -> None:
    rule = broker.faults.delay("Fetch", 1)
    (listed,) = client("GET", "/v1/faults").body["faults"]
    assert listed["id"] == rule.id
    assert client("DELETE", "/v1/faults").body == {"ended": 1}
    assert broker.faults.rules == ()


@pytest.mark.parametrize(
    ("asked", "code", "words"),
    [
        ({"fault": "fial"}, "UNKNOWN_FAULT", "Did you mean 'fail'?"),
        ({"fault": "fail", "api": "produce", "error": 1}, "UNKNOWN_API", "Did you mean 'Produce'?"),
        ({"fault": "fail", "api": [7], "error": 1}, "UNKNOWN_API", "'7'"),
        ({"fault": "fail", "api": [], "error": 1}, "INVALID_FIELD", "Leave it out"),
        ({"fault": "fail", "error": "NOT_LEADER"}, "UNKNOWN_ERROR", "Did you mean 'NOT_LEADER_OR_FOLLOWER'?"),
        ({"fault": "fail", "error": 12345}, "UNKNOWN_ERROR", "12345"),
        ({"fault": "fail", "eror": 7}, "UNKNOWN_FIELD", "Did you mean 'error'?"),
        ({"fault": "fail"}, "MISSING_FIELD", "'error'"),
        ({"fault": "delay", "ms": -1}, "INVALID_FIELD", "from 0 to"),
        ({"fault": "delay", "ms": True}, "INVALID_FIELD", "from 0 to"),
        ({"fault": "drop", "after": "yes"}, "INVALID_FIELD", "true or false"),
        ({"fault": "drop", "times": 0}, "INVALID_FIELD", "from 1 to"),
        ({"fault": "drop", "tmies": 1}, "UNKNOWN_FIELD", "Did you mean 'times'?"),
        ({"fault": "hold_markers", "times": 1}, "UNKNOWN_FIELD", "'times'"),
        ({"fault": "drop", "topic": "x" * 2000}, "INVALID_FIELD", "2000 characters"),
        (["fault"], "INVALID_JSON", "not a JSON object"),
        (b"{", "INVALID_JSON", "not valid JSON"),
        (b"\xff", "INVALID_JSON", "not valid JSON"),
        (b"[" * 100_000, "INVALID_JSON", "nested too deeply"),
        (b'{"fault": "delay", "ms": NaN}', "INVALID_JSON", "NaN is no number"),
    ],
)
def test_what_is_wrong_is_said_and_starts_nothing(
    broker: Broker, client: Client, asked: Any, code: str, words: str
) -> None:
    said = client("POST", "/v1/faults", asked)
    assert (said.status, said.code) == (400, code)
    assert words in said.message
    assert broker.faults.rules == ()


def test_there_are_so_many_faults_and_no_more(broker: Broker, client: Client) -> None:
    for _ in range(faults.FAULTS_MAX):
        broker.faults.delay("Fetch", 1)
    assert client("POST", "/v1/faults", {"fault": "drop"}).code == "TOO_MANY_FAULTS"
    assert client("GET", "/v1/faults/999999").code == "UNKNOWN_FAULT"


def test_requests_are_waited_for_while_they_come_and_forgotten(broker: Broker, client: Client) -> None:
    said: list[Said] = []
    # More than are there already.
    asked = {"api": "Metadata", "client_id": "lister", "count": 3, "timeout_ms": 60_000}
    waiting = threading.Thread(target=lambda: said.append(client("POST", "/v1/requests/wait", asked)))
    waiting.start()
    lister = AdminClient({"bootstrap.servers": broker.bootstrap_servers, "client.id": "lister"})
    while waiting.is_alive():
        lister.list_topics(timeout=60)
        waiting.join(0.01)
    assert said[0].body["count"] >= 3
    late = client("POST", "/v1/requests/wait", {"api": "Vote", "timeout_ms": 1})
    assert late.code == "UNKNOWN_API"
    late = client("POST", "/v1/requests/wait", {"api": "DeleteAcls", "count": 2, "timeout_ms": 1})
    assert (late.status, late.code) == (504, "TIMED_OUT")
    assert "0 of 2 requests (DeleteAcls)" in late.message
    assert client("GET", "/v1/requests?api=Metadata&limit=1").body["count"] > 1
    assert len(client("GET", "/v1/requests?api=Metadata&limit=1").body["requests"]) == 1
    assert client("DELETE", "/v1/requests").body["forgotten"] > 2
    assert client("GET", "/v1/requests").body == {"requests": [], "count": 0, "left_off": 0}


# ------------------------------------------------------------ what is in the broker


def test_topics_are_created_listed_and_deleted(broker: Broker, client: Client) -> None:
    made = {"name": "made", "partitions": 3, "config": {"retention.ms": 60_000, "preallocate": True}}
    assert client("POST", "/v1/topics", made).status == 201
    assert {"name": "made", "partitions": 3} in client("GET", "/v1/topics").body["topics"]
    again = client("POST", "/v1/topics", made)
    assert (again.status, again.code) == (409, "TOPIC_ALREADY_EXISTS")
    assert client("POST", "/v1/topics", {"name": "x", "config": {"retention": 1}}).code == "INVALID_CONFIG"
    assert client("POST", "/v1/topics", {"name": "x", "config": {"retention.ms": []}}).code == "INVALID_FIELD"
    assert client("POST", "/v1/topics", {"name": "x", "partitions": 0}).code == "INVALID_FIELD"
    unknown = client("DELETE", "/v1/topics/mode")
    assert (unknown.status, unknown.code) == (404, "UNKNOWN_TOPIC_OR_PARTITION")
    assert "Did you mean 'made'?" in unknown.message
    assert client("DELETE", "/v1/topics/made").body == {"name": "made", "deleted": True}
    assert "made" not in broker.topics()


def test_topics_of_the_brokers_own_are_not_deleted(broker: Broker, client: Client, topic: str) -> None:
    consumer = Consumer({"bootstrap.servers": broker.bootstrap_servers, "group.id": "own"})
    consumer.commit(offsets=[TopicPartition(topic, 1, 7)], asynchronous=False)
    consumer.close()
    assert client("GET", "/v1/groups/own/offsets").body["offsets"] == [
        {"topic": topic, "partition": 1, "offset": 7}
    ]
    assert client("DELETE", "/v1/topics/__consumer_offsets").code == "INTERNAL_TOPIC"


def test_records_are_written_and_read_in_pages(client: Client, topic: str) -> None:
    path = f"/v1/topics/{topic}/records"
    first = {
        "records": [
            {"key": "k", "value": "a", "timestamp_ms": 5, "headers": [{"name": "h", "value": None}]},
            {"value": {"base64": "/w=="}},
        ]
    }
    made = client("POST", path, first)
    assert (made.status, made.body["base_offset"], made.body["count"]) == (201, 0, 2)
    assert client("POST", path, {"partition": 1, "records": [{"value": None}]}).body["partition"] == 1
    got: list[Any] = []
    following = "0:0"
    while following is not None:
        page = client("GET", f"{path}?limit=1&from={following}").body
        got += page["records"]
        following = page["next"]
    assert [(one["partition"], one["offset"], one["key"], one["value"]) for one in got] == [
        (0, 0, "k", "a"),
        (0, 1, None, {"base64": "/w=="}),
        (1, 0, None, None),
    ]
    assert got[0]["timestamp_ms"] == 5
    assert got[0]["headers"] == [{"name": "h", "value": None}]
    assert client("GET", path).body == {"records": got, "next": None}
    assert client("GET", f"{path}?partition=1").body["records"] == got[2:]
    small = client("GET", f"{path}?max_bytes=1").body
    assert small["records"][0]["too_large"] == {"key": 1, "value": 1}
    assert small["next"] == "0:1"


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("?from=0", 400, "INVALID_FIELD"),
        ("?from=x:1", 400, "INVALID_FIELD"),
        ("?limit=0", 400, "INVALID_FIELD"),
        ("?limit=" + "1" * 5000, 400, "INVALID_FIELD"),
        ("?max_bytes=99999999999", 400, "INVALID_FIELD"),
        ("?partition=2", 404, "UNKNOWN_TOPIC_OR_PARTITION"),
        ("?read_committed=1", 400, "INVALID_FIELD"),
        ("?partitions=1", 400, "UNKNOWN_FIELD"),
        ("?" + "a=1&" * 50, 400, "INVALID_QUERY"),
    ],
)
def test_a_query_that_cannot_be_is_refused(
    client: Client, topic: str, path: str, status: int, code: str
) -> None:
    said = client("GET", f"/v1/topics/{topic}/records{path}")
    assert (said.status, said.code) == (status, code)


@pytest.mark.parametrize(
    "records",
    [
        [],
        ["a"],
        [{"value": 1}],
        [{"value": {"base64": "?"}}],
        [{"value": {"text": "a"}}],
        [{"headers": [1]}],
        [{"headers": [{"value": "a"}]}],
        [{"vale": "a"}],
        "a",
    ],
)
def test_what_is_no_record_is_refused_and_nothing_is_written(
    broker: Broker, client: Client, topic: str, records: Any
) -> None:
    said = client("POST", f"/v1/topics/{topic}/records", {"records": records})
    assert said.status == 400, said
    assert broker.records(topic) == []


def test_records_are_waited_for_while_they_come_in_a_topic_that_is_made_later(
    broker: Broker, client: Client
) -> None:
    said: list[Said] = []
    asked = {"count": 2, "timeout_ms": 20_000}
    waiting = threading.Thread(target=lambda: said.append(client("POST", "/v1/topics/later/wait", asked)))
    waiting.start()
    broker.create_topic("later", 2)
    broker.produce("later", "a")
    broker.produce("later", "b", partition=1)
    waiting.join(60)
    assert said[0].body == {"topic": "later", "count": 2}
    late = client("POST", "/v1/topics/later/wait", {"count": 3, "timeout_ms": 500})
    assert (late.status, late.code) == (504, "TIMED_OUT")
    assert "has 2 of 3 records" in late.message
    assert "Did you mean 'later'?" in client("POST", "/v1/topics/latr/wait", {"timeout_ms": 1}).message


def test_transactions_are_shown_hidden_and_aborted(broker: Broker, client: Client, topic: str) -> None:
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "transactional.id": topic})
    producer.init_transactions(10)
    for value, commits in (("kept", True), ("gone", False)):
        producer.begin_transaction()
        producer.produce(topic, value, partition=0)
        producer.flush()
        if commits:
            producer.commit_transaction(10)
        else:
            producer.abort_transaction(10)
    producer.begin_transaction()
    producer.produce(topic, b"open", partition=0)
    producer.flush()
    path = f"/v1/topics/{topic}/records"

    def values(query: str) -> list[Any]:
        return [one["value"] for one in client("GET", f"{path}{query}").body["records"]]

    assert values("") == ["kept", "gone", "open"]
    assert values("?read_committed=true") == ["kept"]
    assert client("POST", f"/v1/topics/{topic}/wait", {"read_committed": True}).body["count"] == 1
    assert client("POST", f"/v1/topics/{topic}/wait", {"count": 3}).body["count"] == 3
    (shown,) = client("GET", "/v1/transactions").body["transactions"]
    assert (shown["transactional_id"], shown["state"]) == (topic, "Ongoing")
    assert shown["partitions"] == [{"topic": topic, "partition": 0}]
    assert client("POST", f"/v1/transactions/{topic}/abort").status == 200
    assert client("POST", "/v1/transactions/nobody/abort").status == 404


def test_clients_are_disconnected(broker: Broker, client: Client) -> None:
    with socket.create_connection((broker.host, broker.port), timeout=60) as connected:
        while client("GET", "/v1").body["connections"] == 0:
            time.sleep(0.001)
        assert client("POST", "/v1/disconnect").body["closed"] > 0
        assert connected.recv(1) == b""


def test_a_group_is_waited_for_until_it_is_there_and_has_consumed_all(
    broker: Broker, client: Client, topic: str
) -> None:
    broker.produce(topic, "a", "b", partition=1)
    path = f"/v1/groups/{topic}/wait"
    nobody = client("POST", path, {"timeout_ms": 1})
    assert (nobody.code, "no such group" in nobody.message) == ("TIMED_OUT", True)
    said: list[Said] = []
    asked = {"topic": topic, "timeout_ms": 60_000}
    waiting = threading.Thread(target=lambda: said.append(client("POST", path, asked)))
    waiting.start()
    settings = {"bootstrap.servers": broker.bootstrap_servers, "group.id": topic}
    consumer = Consumer(settings | {"auto.offset.reset": "earliest", "enable.auto.commit": False})
    consumer.subscribe([topic])
    first = consumer.poll(60)
    assert first is not None
    assert client("POST", path, {"members": 1}).status == 200
    assert {"group": topic, "state": "Stable", "members": 1} in client("GET", "/v1/groups").body["groups"]
    consumer.commit(first, asynchronous=False)
    behind = client("POST", path, {"topic": topic, "timeout_ms": 1})
    assert behind.code == "TIMED_OUT"
    assert f"Records are left in: {topic}-1 from 1." in behind.message
    assert waiting.is_alive()
    consumer.commit(consumer.poll(60), asynchronous=False)
    waiting.join(60)
    assert said[0].body == {"group": topic, "consumed": True}
    assert client("POST", path).status == 200
    assert client("POST", path, {"topic": "nowhere", "timeout_ms": 1}).code == "UNKNOWN_TOPIC_OR_PARTITION"
    consumer.close()
    assert client("POST", path, {"members": 0}).status == 200


def test_all_is_as_at_the_start_after_a_reset(client: Client) -> None:
    with Broker(control=True) as fresh:
        of_it = Client(fresh.control_address)
        fresh.create_topic("a")
        fresh.faults.delay("Fetch", 1)
        consumer = Consumer({"bootstrap.servers": fresh.bootstrap_servers, "group.id": "g"})
        consumer.commit(offsets=[TopicPartition("a", 0, 0)], asynchronous=False)
        consumer.close()
        assert [one["group"] for one in of_it("GET", "/v1/groups").body["groups"]] == ["g"]
        assert of_it("POST", "/v1/reset").body == {"topics": 1}
        assert of_it("GET", "/v1/groups").body["groups"] == []
        assert (fresh.topics(), fresh.faults.rules, fresh.requests) == ({}, (), ())


# ------------------------------------------------------------ who may use it


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Origin": "http://localhost"}, 403, "BROWSER_REFUSED"),
        ({"Origin": "null"}, 403, "BROWSER_REFUSED"),
        ({"Sec-Fetch-Site": "same-origin"}, 403, "BROWSER_REFUSED"),
        ({"Host": "rebound.example:9"}, 403, "HOST_REFUSED"),
        ({"Host": "192.168.0.7"}, 403, "HOST_REFUSED"),
        ({"Host": "127.0.0.1.example"}, 403, "HOST_REFUSED"),
        ({"Content-Type": "text/plain"}, 415, "JSON_REQUIRED"),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415, "JSON_REQUIRED"),
    ],
)
def test_pages_in_browsers_are_refused(
    broker: Broker, client: Client, headers: dict[str, str], status: int, code: str
) -> None:
    said = client("POST", "/v1/faults", {"fault": "drop"}, **headers)
    assert (said.status, said.code) == (status, code)
    assert broker.faults.rules == ()


def asked(method: str = "GET", **headers: str) -> Request:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return Request(method, "/v1", "", {"host": "localhost"} | given, True)


def test_who_knows_the_token_is_let_in_by_any_name() -> None:
    token = "a token of some length"
    check(asked(authorization=f"Bearer {token}", host="ottla:9999"), token)
    check(
        asked("POST", authorization=f"bearer {token}", content_type="application/json; charset=utf-8"), token
    )
    for refused in ("", token, f"Basic {token}", f"Bearer {token}x", "Bearer \xff"):
        with pytest.raises(ControlError) as caught:
            check(asked(authorization=refused), token)
        assert caught.value.status == 401
    with pytest.raises(ControlError):
        check(asked(authorization=f"Bearer {token}", origin="http://ottla"), token)


@pytest.mark.parametrize(
    ("host", "is_ours"),
    [
        ("localhost:1", True),
        ("LOCALHOST", True),
        ("127.0.0.1:9", True),
        ("127.9.9.9", True),
        ("[::1]:9", True),
        ("", False),
        ("localhost.example", False),
        ("10.0.0.1", False),
        ("127.1", False),
        ("[::2]", False),
    ],
)
def test_names_of_this_machine(host: str, is_ours: bool) -> None:
    assert is_this_machine(host) is is_ours


def test_an_address_that_others_reach_needs_a_token_that_is_long_enough() -> None:
    async def bound(host: str, token: str | None) -> None:
        control = server.Control((host, 0), token=token)
        await control.bind()
        control.close()

    with pytest.raises(StartError, match="OTTLA_CONTROL_TOKEN"):
        asyncio.run(bound("0.0.0.0", None))
    with pytest.raises(StartError, match="OTTLA_CONTROL_TOKEN"):
        asyncio.run(bound("127.0.0.1.example", None))
    asyncio.run(bound("::1", None))
    asyncio.run(bound("localhost", None))
    with pytest.raises(StartError, match="15 characters"):
        asyncio.run(bound("127.0.0.1", "x" * 15))
    asyncio.run(bound("0.0.0.0", "x" * 16))
    with pytest.raises(StartError, match=r"cannot be opened at 192\.0\.2\.1:"):
        asyncio.run(bound("192.0.2.1", "x" * 16))


# ------------------------------------------------------------ the port itself


def test_paths_and_methods_that_there_are_not(client: Client) -> None:
    assert client("GET", "/v2").code == "UNKNOWN_PATH"
    assert client("GET", "/v10").code == "UNKNOWN_PATH"
    assert client("GET", "/").code == "UNKNOWN_PATH"
    assert client("GET", "/v1/topics/").status == 200
    said = client("DELETE", "/v1/topics")
    assert (said.status, said.headers["Allow"]) == (405, "GET, POST")
    assert client("PATCH", "/v1/topics").status == 405
    assert (
        client("POST", "/v1/faults", b"", **{"Content-Length": f"{server.BODY_BYTES_MAX + 1}"}).status == 413
    )


def test_all_endpoints_are_named_and_described(client: Client) -> None:
    named = client("GET", "/v1").body["endpoints"]
    page = (DOCS / "CONTROL.md").read_text()
    assert named == endpoints.names()
    for endpoint in named:
        assert f"`{endpoint}`" in page, endpoint


def test_a_broker_without_a_control_port_loads_nothing_that_is_for_tests() -> None:
    look = "import sys, ottla.process, ottla.node; print([name for name in sys.modules if 'testing' in name])"
    done = subprocess.run([sys.executable, "-c", look], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"


def test_the_port_stays_over_a_restart_and_ends_with_the_broker() -> None:
    broker = Broker(control=True)
    with pytest.raises(RuntimeError, match="control=True"):
        _ = broker.control_address
    with broker:
        address = broker.control_address
        made = Client(address)("POST", "/v1/faults", {"fault": "delay", "api": "Vote", "ms": 1})
        assert made.code == "UNKNOWN_API"
        broker.kill()
        with pytest.raises(ConnectionError):
            Client(address)("GET", "/v1")
        broker.start()
        assert broker.control_address == address
        assert Client(address)("GET", "/v1").status == 200
    with pytest.raises(ConnectionError):
        Client(address)("GET", "/v1")


def test_a_long_body_of_many_records_is_taken(broker: Broker, client: Client, topic: str) -> None:
    many = {"records": [{"value": "x"}] * contents.RECORDS_MAX}
    assert client("POST", f"/v1/topics/{topic}/records", many).body["count"] == contents.RECORDS_MAX
    too_many = {"records": [{"value": "x"}] * (contents.RECORDS_MAX + 1)}
    assert client("POST", f"/v1/topics/{topic}/records", too_many).code == "INVALID_FIELD"
    page = client("GET", f"/v1/topics/{topic}/records?limit=10000").body
    assert len(page["records"]) < contents.RECORDS_MAX  # a megabyte of answer is full before
    assert page["next"] == f"0:{len(page['records'])}"


@given(st.binary(max_size=50) | st.none())
def test_bytes_come_back_from_json(data: bytes | None) -> None:
    assert to_bytes(json.loads(json.dumps(from_bytes(data))), "value") == data


@given(st.binary(max_size=100))
def test_a_body_is_fields_or_refused(data: bytes) -> None:
    try:
        assert isinstance(from_body(data), Fields)
    except ControlError as error:
        assert error.status == 400


@given(st.text(max_size=100))
def test_a_query_is_fields_or_refused(text: str) -> None:
    try:
        from_query(text).end()
    except ControlError as error:
        assert error.status == 400


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/topics", rb'{"name": "\ud800"}'),
        ("/v1/topics", rb'{"name": "halves", "config": {"retention.ms": "\ud800"}}'),
        ("/v1/topics/{topic}/records", rb'{"records": [{"headers": [{"name": "\ud800", "value": "x"}]}]}'),
        ("/v1/faults", rb'{"fault": "delay", "ms": 1, "topic": "\ud800"}'),
        ("/v1/faults", rb'{"fault": "delay", "ms": 1, "client_id": "\ud800"}'),
    ],
)
def test_half_a_character_is_no_text(client: Client, topic: str, path: str, body: bytes) -> None:
    said = client("POST", path.format(topic=topic), body)
    assert (said.status, said.code) == (400, "INVALID_FIELD")
    assert "half of a character" in said.message


def _refused(call: Callable[[], object]) -> None:
    with pytest.raises(ControlError):
        call()


@pytest.mark.parametrize(
    "work",
    [
        partial(_refused, partial(Fields(dict.fromkeys(map(str, range(80_000)), 1), "body").text, "fault")),
        partial(_refused, partial(Fields({"ms": [1] * 500_000}, "body").whole, "ms", 0, 1)),
        partial(meant, "x" * 200 + "y", [f"{'x' * 230}{number}" for number in range(10_000)]),
        partial(meant, "x" * 30, [f"{number:04}{'x' * 30}" for number in range(1_000)]),
        # The same characters in another order: what costs the most to compare.
        partial(meant, "ab" * 25, [f"{number:04}{'aabb' * 12}" for number in range(1_000)]),
    ],
    ids=["many fields", "a long list", "long names", "many names", "names out of order"],
)
def test_an_error_costs_little_whatever_was_sent(work: Callable[[], object]) -> None:
    for attempt in cpu_at_most(0.020):
        with attempt.cpu():
            work()


@given(st.text("abc", max_size=8), st.lists(st.text("abc", max_size=8), max_size=20))
def test_what_is_meant_is_what_pythons_own_comparison_finds(name: str, known: list[str]) -> None:
    assert nearest(name, known) == next(iter(get_close_matches(name, set(known), 1)), None)


def test_what_is_meant_is_said() -> None:
    assert meant("order", ["orders", "xs"]) == "Did you mean 'orders'?"
