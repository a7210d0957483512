"""One request over a plain connection, for the little that librdkafka cannot ask.

That is the configuration of all brokers together: a resource with an empty name, which librdkafka refuses.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import Any

from ottla.cli.errors import CliError, ExitCode
from ottla.errors import ErrorCode
from ottla.wire.messages import decode_response, encode_request

CLIENT_ID = b"ottla"
TIMEOUT_S = 5.0
RESPONSE_BYTES_MAX = 64 * 1024 * 1024

BROKER_RESOURCE = 4
DESCRIBE_CONFIGS, DESCRIBE_CONFIGS_VERSION = 32, 4
INCREMENTAL_ALTER_CONFIGS, INCREMENTAL_ALTER_CONFIGS_VERSION = 44, 1
SET, DELETE = 0, 1
# Values of a described configuration's source (DescribeConfigsResponse.ConfigSource).
SOURCES = {1: "topic", 2: "broker", 3: "all brokers", 4: "static", 5: "default"}


def describe_all_brokers(address: tuple[str, int]) -> list[dict[str, Any]]:
    """The configurations set for all brokers, as `ottla config describe` shows them."""
    response = _ask(
        address,
        DESCRIBE_CONFIGS,
        DESCRIBE_CONFIGS_VERSION,
        {
            "resources": [
                {"resource_type": BROKER_RESOURCE, "resource_name": "", "configuration_keys": None}
            ],
            "include_synonyms": False,
            "include_documentation": False,
        },
    )
    (result,) = response.results
    _check(result)
    return [
        {
            "name": entry.name,
            "value": entry.value,
            "source": SOURCES.get(entry.config_source, "unknown"),
            "read_only": entry.read_only,
            "sensitive": entry.is_sensitive,
        }
        for entry in sorted(result.configs, key=lambda entry: str(entry.name))
    ]


def alter_all_brokers(address: tuple[str, int], configs: dict[str, str | None], *, dry_run: bool) -> None:
    """Set configurations for all brokers; those whose value is None are removed."""
    entries = [
        {"name": name, "config_operation": DELETE if value is None else SET, "value": value}
        for name, value in configs.items()
    ]
    response = _ask(
        address,
        INCREMENTAL_ALTER_CONFIGS,
        INCREMENTAL_ALTER_CONFIGS_VERSION,
        {
            "resources": [{"resource_type": BROKER_RESOURCE, "resource_name": "", "configs": entries}],
            "validate_only": dry_run,
        },
    )
    (result,) = response.responses
    _check(result)


def _check(result: Any) -> None:
    if result.error_code:
        text = result.error_message or ErrorCode(result.error_code).name
        raise CliError(f"all brokers: {text}")


def _ask(address: tuple[str, int], api_key: int, version: int, fields: dict[str, Any]) -> Any:
    """The response to one request with a flexible header. CliError where there is none."""
    correlation_id = int.from_bytes(os.urandom(3), "big")
    head = struct.pack(">hhih", api_key, version, correlation_id, len(CLIENT_ID)) + CLIENT_ID + b"\0"
    request = head + encode_request(api_key, version, fields)
    where = f"{address[0]}:{address[1]}"
    try:
        with socket.create_connection(address, TIMEOUT_S) as connection, connection.makefile("rb") as stream:
            connection.sendall(struct.pack(">i", len(request)) + request)
            size = int.from_bytes(stream.read(4), "big")
            response = stream.read(size) if 5 <= size <= RESPONSE_BYTES_MAX else b""
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise CliError(f"{where}: {reason}", ExitCode.UNREACHABLE) from None
    if len(response) < 5 or response[:4] != correlation_id.to_bytes(4, "big"):
        raise CliError(
            f"{where} does not answer over a plain connection; settings for all brokers need one",
            ExitCode.UNREACHABLE,
        )
    # Behind the correlation id is the header's section of tagged fields, which is empty.
    return decode_response(api_key, version, response, 5)
