"""The audit log: who was denied what, in one line each, and not more of one request than anybody reads."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from cases import metadata_fields
from rights_support import BATCH, Broker, Right, client, run

from ottla.broker.audit import DENIALS_TOLD_MAX
from ottla.security.acl_bindings import Operation, ResourceType

TOPIC, GROUP, CLUSTER = ResourceType.TOPIC, ResourceType.GROUP, ResourceType.CLUSTER
DENIED_T = (
    "Principal = User:alice is Denied operation = DESCRIBE from host = 10.0.0.1 "
    "on resource = Topic:LITERAL:t for request = Metadata with resourceRefCount = 1 based on rule DefaultDeny"
)


def lines(caplog: pytest.LogCaptureFixture, level: int = logging.INFO) -> list[str]:
    found = [
        one.getMessage() for one in caplog.records if one.name == "ottla.authorizer" and one.levelno == level
    ]
    caplog.clear()
    return found


def told(tmp_path: Path, caplog: pytest.LogCaptureFixture, asked: Any, *rights: Right) -> list[str]:
    """What the log says of one request."""

    async def body(broker: Broker) -> None:
        await broker.create("t")
        caplog.clear()
        await broker.ask(client(*rights), *asked)

    with caplog.at_level(logging.INFO, "ottla.authorizer"):
        run(tmp_path, body)
    return lines(caplog)


def test_a_denial_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    topics = metadata_fields("t", "t")
    assert told(tmp_path, caplog, ("Metadata", 12, topics)) == [DENIED_T]


def test_a_denial_counts_once(tmp_path: Path) -> None:
    async def body(broker: Broker) -> None:
        await broker.create("t", partitions=3)
        entries = [{"index": index, "records": BATCH} for index in range(3)]
        topics = [{"name": name, "partition_data": entries} for name in ("t", "u")]
        fields = {"transactional_id": None, "acks": 1, "timeout_ms": 5_000, "topic_data": topics}
        await broker.ask(client(), "Produce", 9, fields)
        assert broker.node.services.denials == 2

    run(tmp_path, body)


def test_what_the_gate_refuses_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (line,) = told(tmp_path, caplog, ("Heartbeat", 4, {"group_id": "g", "member_id": "m"}))
    assert "operation = READ" in line and "resource = Group:LITERAL:g for request = Heartbeat" in line


def test_names_are_printable(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (line,) = told(tmp_path, caplog, ("Metadata", 12, metadata_fields("a\nPrincipal = User:\x1b[1m")))
    assert line.isprintable() and "Topic:LITERAL:a\\nPrincipal = User:\\x1b[1m for" in line


def test_of_one_request_no_more_is_told_than_is_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = [f"t{n}" for n in range(3 * DENIALS_TOLD_MAX)]
    found = told(tmp_path, caplog, ("Metadata", 12, metadata_fields(*names)))
    assert len(found) == DENIALS_TOLD_MAX
    assert [line.endswith("is left out)") for line in found] == [False] * (DENIALS_TOLD_MAX - 1) + [True]


@pytest.mark.parametrize(
    ("asked", "rights"),
    [
        (("Metadata", 12, {"topics": None}), []),
        (("ListGroups", 4, {}), []),
        (("DescribeTopicPartitions", 0, {"response_partition_limit": 10}), []),
        (("ListTransactions", 1, {"duration_filter": -1}), []),
        (
            ("WriteTxnMarkers", 1, {"markers": []}),
            [Right(Operation.CLUSTER_ACTION, CLUSTER)],
        ),
        (
            ("Metadata", 12, metadata_fields("t", include_topic_authorized_operations=True)),
            [Right(Operation.DESCRIBE, TOPIC, "t")],
        ),
        (
            ("OffsetForLeaderEpoch", 4, {"topics": [{"topic": "t", "partitions": [{}]}]}),
            [Right(Operation.DESCRIBE, TOPIC, "t")],
        ),
    ],
    ids=lambda each: each[0] if isinstance(each, tuple) else "",
)
def test_what_only_shapes_an_answer_is_not_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, asked: Any, rights: list[Right]
) -> None:
    assert told(tmp_path, caplog, asked, *rights) == []


def test_what_is_allowed_is_told_on_debug(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    right = Right(Operation.READ, TOPIC, "t")

    async def body(broker: Broker) -> None:
        await broker.create("t")
        caplog.clear()
        await broker.ask(client(right), "Metadata", 12, metadata_fields("t"))

    with caplog.at_level(logging.DEBUG, "ottla.authorizer"):
        run(tmp_path, body)
    (line,) = lines(caplog, logging.DEBUG)
    assert line.startswith("Principal = User:alice is Allowed operation = DESCRIBE from host = 10.0.0.1")
    assert line.endswith(
        "based on rule MatchingAcl(acl=StandardAcl[resourceType=TOPIC, resourceName=t, patternType=LITERAL, "
        "principal=User:alice, host=*, operation=READ, permissionType=ALLOW])"
    )
