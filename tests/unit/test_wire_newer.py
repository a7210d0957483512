"""Messages that are newer than kio: byte for byte what Kafka's definitions say, and what is answered."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from admin_support import Client, run

from ottla.broker.error_responses import error_fields
from ottla.errors import ErrorCode, KafkaError
from ottla.wire import newer
from ottla.wire.messages import (
    decode_request,
    decode_response,
    encode_request,
    encode_response,
    response_header_flexible,
)

API_VERSIONS, DELETE_GROUPS = 18, 42
SOFTWARE = {"client_software_name": "ab", "client_software_version": "1"}
SOFTWARE_BYTES = b"\x03ab\x021"


@pytest.mark.parametrize(
    ("fields", "data"),
    [
        ({"cluster_id": None, "node_id": -1}, b"\x00\xff\xff\xff\xff\x00"),
        ({"cluster_id": "xyz", "node_id": 7}, b"\x04xyz\x00\x00\x00\x07\x00"),
        ({}, b"\x00\xff\xff\xff\xff\x00"),
    ],
)
def test_an_api_versions_request(fields: dict[str, Any], data: bytes) -> None:
    assert encode_request(API_VERSIONS, 5, SOFTWARE | fields) == SOFTWARE_BYTES + data
    request = decode_request(API_VERSIONS, 5, SOFTWARE_BYTES + data)
    assert request.client_software_name == "ab"
    assert (request.cluster_id, request.node_id) == (fields.get("cluster_id"), fields.get("node_id", -1))


def test_an_api_versions_response_is_that_of_version_4() -> None:
    keys = [{"api_key": 18, "min_version": 0, "max_version": 5}]
    fields = {"error_code": 0, "api_keys": keys, "throttle_time_ms": 3}
    data = b"\x00\x00" + b"\x02" + b"\x00\x12\x00\x00\x00\x05\x00" + b"\x00\x00\x00\x03" + b"\x00"
    assert encode_response(API_VERSIONS, 5, fields) == encode_response(API_VERSIONS, 4, fields) == data
    assert decode_response(API_VERSIONS, 5, data).api_keys[0].max_version == 5
    # A client may have guessed: the header stays without tagged fields (KIP-511).
    assert not response_header_flexible(API_VERSIONS, 5)


def test_delete_groups() -> None:
    assert encode_request(DELETE_GROUPS, 3, {"groups_names": ["g"]}) == b"\x02\x02g\x00"
    assert decode_request(DELETE_GROUPS, 3, b"\x02\x02g\x00").groups_names == ("g",)
    results: list[dict[str, Any]] = [
        {"group_id": "g", "error_code": 0},
        {"group_id": "h", "error_code": 68, "error_message": "no"},
    ]
    data = b"\x00\x00\x00\x00" + b"\x03" + b"\x02g\x00\x00\x00\x00" + b"\x02h\x00\x44\x03no\x00" + b"\x00"
    assert encode_response(DELETE_GROUPS, 3, {"throttle_time_ms": 0, "results": results}) == data
    read = decode_response(DELETE_GROUPS, 3, data).results
    assert [(each.group_id, each.error_code, each.error_message) for each in read] == [
        ("g", 0, None),
        ("h", 68, "no"),
    ]
    assert response_header_flexible(DELETE_GROUPS, 3)


@pytest.mark.parametrize(("schema", "version"), sorted(newer.VERSIONS))
def test_kio_lacks_what_is_here(schema: str, version: int) -> None:
    """Where this fails, the message here goes."""
    assert find_spec(f"kio.schema.{schema}.v{version - 1}.request") is not None
    assert find_spec(f"kio.schema.{schema}.v{version}") is None


def test_a_client_learns_that_it_has_reached_another_node(tmp_path: Path) -> None:
    """KafkaApis.handleApiVersionsRequest, ApiVersionsRequest.isValid."""

    async def body(client: Client) -> None:
        here = (await client.ask("DescribeCluster", 1, {"include_cluster_authorized_operations": False}))[
            "cluster_id"
        ]
        node_id = 1
        for cluster_id, node, error in (
            (None, -1, "none"),
            (here, node_id, "none"),
            (here, node_id + 1, "rebootstrap_required"),
            ("another", node_id, "rebootstrap_required"),
            ("", node_id, "rebootstrap_required"),
            (here, -2, "rebootstrap_required"),
            (here, -1, "invalid_request"),
            (None, node_id, "invalid_request"),
        ):
            answer = await client.ask(
                "ApiVersions", 5, SOFTWARE | {"cluster_id": cluster_id, "node_id": node}
            )
            assert answer["error_code"] == ErrorCode[error], (cluster_id, node)
            assert bool(answer["api_keys"]) == (error == "none")
        # What is wrong with the software's name comes before what is wrong with the node.
        wrong = {"client_software_name": "a b", "client_software_version": "1"}
        answer = await client.ask("ApiVersions", 5, wrong | {"cluster_id": "another", "node_id": 1})
        assert answer["error_code"] == ErrorCode.invalid_request

    run(tmp_path, body)


def test_an_error_of_a_group_that_is_deleted_has_no_message(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        answer = await client.ask("DeleteGroups", 3, {"groups_names": ["none"]})
        (result,) = answer["results"]
        assert result["group_id"] == "none"
        assert result["error_message"] is None
        assert result["error_code"] != 0

    run(tmp_path, body)


def test_a_request_that_fails_as_a_whole() -> None:
    request = decode_request(DELETE_GROUPS, 3, b"\x02\x02g\x00")
    fields = error_fields(DELETE_GROUPS, request, KafkaError(ErrorCode.not_coordinator, "why"))
    read = decode_response(DELETE_GROUPS, 3, encode_response(DELETE_GROUPS, 3, fields)).results
    assert [(each.group_id, each.error_code) for each in read] == [("g", ErrorCode.not_coordinator)]
