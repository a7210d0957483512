"""GetTelemetrySubscriptions and PushTelemetry against a broker, and who is told that there are such."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from admin_support import NO_ID, Client, code, run
from opentelemetry.proto.metrics.v1.metrics_pb2 import MetricsData

from ottla.broker.api.telemetry import push_telemetry
from ottla.broker.telemetry import WAITING_BYTES_MAX, WAITING_MAX, ClientTelemetry
from ottla.text import id_text
from ottla.wire.compression import Codec, compress, decompress

SOFTWARE = {"client_software_name": "probe", "client_software_version": "1.0"}


async def subscribe(client: Client, name: str, **configs: str) -> str:
    changes = [
        {"name": key.replace("_", "."), "value": value, "config_operation": 0}
        for key, value in configs.items()
    ]
    resources = [{"resource_type": 16, "resource_name": name, "configs": changes}]
    answer = await client.ask("IncrementalAlterConfigs", 1, {"resources": resources, "validate_only": False})
    return code(answer["responses"][0])


async def get(client: Client, instance_id: uuid.UUID = NO_ID) -> dict[str, Any]:
    return await client.ask("GetTelemetrySubscriptions", 0, {"client_instance_id": instance_id})


async def push(client: Client, asked: dict[str, Any], metrics: bytes, codec: int = 0) -> str:
    fields = {"client_instance_id": asked["client_instance_id"], "subscription_id": asked["subscription_id"]}
    fields |= {"terminating": False, "compression_type": codec, "metrics": metrics}
    return code(await client.ask("PushTelemetry", 0, fields))


def a_gauge(value: float = 7) -> bytes:
    data = MetricsData()
    metric = data.resource_metrics.add().scope_metrics.add().metrics.add(name="org.apache.kafka.consumer.x")
    metric.gauge.data_points.add(as_double=value)
    return data.SerializeToString()


def test_clients_are_told_that_they_may_send_metrics_while_somebody_reads_them(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        for readers in (0, 1, 0):
            client.node.services.telemetry.readers = readers
            answer = await client.ask("ApiVersions", 4, SOFTWARE)
            listed = {api["api_key"] for api in answer["api_keys"]}
            assert ({71, 72} <= listed) is bool(readers) and not ({71, 72} & listed and not readers)

    run(tmp_path, body)


@pytest.mark.parametrize("codec", list(Codec))
def test_what_a_client_was_asked_for_and_sends_is_kept(tmp_path: Path, codec: Codec) -> None:
    async def body(client: Client) -> None:
        telemetry = client.node.services.telemetry
        telemetry.readers = 1
        forwarded: list[Any] = []

        def forward(who: Any, metrics: bytes) -> Generator[None, None, None]:
            yield
            forwarded.append((who["client_software_name"], who["client_instance_id"], metrics))

        telemetry.forward = forward
        await client.ask("ApiVersions", 4, SOFTWARE)
        match = "client_software_name=pro.e, client_source_address=127\\..*, client_source_port=\\d+"
        assert (
            await subscribe(client, "s", metrics="org.apache.kafka", match=match, interval_ms="100") == "none"
        )
        asked = await get(client)
        assert code(asked) == "none" and asked["client_instance_id"].int
        assert asked["requested_metrics"] == ["org.apache.kafka"] and asked["push_interval"] == 100
        assert asked["accepted_compression_types"] == [4, 3, 1, 2] and asked["telemetry_max_bytes"] == 1 << 20
        assert asked["delta_temporality"] is True
        assert await push(client, asked, compress(codec, a_gauge()), codec) == "none"
        [sample] = telemetry.received.samples("kafka_client_consumer_x")
        assert sample.value == 7 and dict(sample.labels)["client_software_version"] == "1.0"
        instance_id = id_text(asked["client_instance_id"])
        assert dict(sample.labels)["client_instance_id"] == instance_id
        assert forwarded == [("probe", instance_id, a_gauge())]

    run(tmp_path, body)


@pytest.mark.parametrize(
    ("metrics", "codec"),
    [
        (b"\xff" * 9, 0),
        (b"\xff" * 9, 1),
        (compress(Codec.ZSTD, bytes((1 << 20) + 1)), Codec.ZSTD),
        (compress(Codec.GZIP, bytes(1 << 26)), Codec.GZIP),
    ],
)
def test_what_cannot_be_read_or_is_too_much_unpacked_is_refused(
    tmp_path: Path, metrics: bytes, codec: int
) -> None:
    async def body(client: Client) -> None:
        telemetry = client.node.services.telemetry
        telemetry.readers = 1
        asked = await get(client)
        assert asked["requested_metrics"] == []
        assert await push(client, asked, metrics, codec) == "invalid_record"
        assert not telemetry.received.names

    run(tmp_path, body)


async def taken(telemetry: ClientTelemetry) -> None:
    async with telemetry.turn(1):
        pass


def test_no_more_is_unpacked_than_is_read_and_no_more_waits_than_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(client: Client) -> None:
        telemetry = client.node.services.telemetry
        telemetry.readers = 1
        unpacked = 0

        def counting(*args: Any) -> bytes:
            nonlocal unpacked
            unpacked += 1
            return bytes(decompress(*args))

        monkeypatch.setattr(push_telemetry, "decompress", counting)
        # A kilobyte that becomes a megabyte.
        packed = compress(Codec.ZSTD, b"\x10\x00" * 150_000)
        asked = await get(client)
        async with telemetry.turn(0):
            pushed = asyncio.ensure_future(push(client, asked, packed, Codec.ZSTD))
            while telemetry.waiting < 2:
                await asyncio.sleep(0)
            assert unpacked == 0
        assert await pushed == "none" and unpacked == 1
        async with telemetry.turn(0):
            others = [asyncio.ensure_future(taken(telemetry)) for _ in range(WAITING_MAX - 1)]
            while telemetry.waiting < WAITING_MAX:
                await asyncio.sleep(0)
            assert await push(client, await get(client), b"\x10\x00") == "throttling_quota_exceeded"
        await asyncio.gather(*others)
        assert telemetry.waiting == 0
        # Many that are small, or one that is large.
        async with telemetry.turn(WAITING_BYTES_MAX * 2):
            assert await push(client, await get(client), b"\x10\x00") == "throttling_quota_exceeded"
        assert await push(client, await get(client), b"\x10\x00") == "none"

    run(tmp_path, body)


def test_who_asks_again_too_early_is_told_so(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        asked = await get(client)
        again = await get(client, asked["client_instance_id"])
        assert code(again) == "throttling_quota_exceeded"
        assert await push(client, again | {"client_instance_id": NO_ID}, b"") == "invalid_request"

    run(tmp_path, body)


def test_nobody_reads_nothing_is_kept(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        asked = await get(client)
        # It is not even looked at.
        assert await push(client, asked, b"\xff" * 9) == "none"
        assert not client.node.services.telemetry.received.names

    run(tmp_path, body)


def test_a_client_that_goes_is_forgotten(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        await get(client)
        instances = client.node.services.telemetry.instances(client.node.services.metadata.image)
        assert len(instances) == 1
        client.node.disconnect()
        assert len(instances) == 0

    run(tmp_path, body)


def test_the_largest_push_is_telemetry_max_bytes(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        asked = await get(client)
        assert asked["telemetry_max_bytes"] == 10
        assert await push(client, asked, bytes(11)) == "telemetry_too_large"

    run(tmp_path, body, {"telemetry.max.bytes": "10"})


@pytest.mark.parametrize("match", ["client_id=(?=a)", "client_id=(a", "nobody=a", "client_id"])
def test_a_pattern_that_cannot_be_matched_is_refused_when_it_is_set(tmp_path: Path, match: str) -> None:
    async def body(client: Client) -> None:
        assert await subscribe(client, "s", match=match) == "invalid_config"

    run(tmp_path, body)
