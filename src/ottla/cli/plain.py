"""The configuration of all brokers together: a resource with an empty name, which librdkafka refuses."""

from __future__ import annotations

from typing import Any

from ottla.cli.direct import DirectConnection, Unanswered, check
from ottla.cli.errors import CliError, ExitCode

TIMEOUT_S = 5.0

BROKER_RESOURCE = 4
SET, DELETE = 0, 1
# Values of a described configuration's source (DescribeConfigsResponse.ConfigSource).
SOURCES = {1: "topic", 2: "broker", 3: "all brokers", 4: "static", 5: "default"}


def describe_all_brokers(address: tuple[str, int]) -> list[dict[str, Any]]:
    """The configurations set for all brokers, as `ottla config describe` shows them."""
    response = _ask(
        address,
        "DescribeConfigs",
        {
            "resources": [
                {"resource_type": BROKER_RESOURCE, "resource_name": "", "configuration_keys": None}
            ],
            "include_synonyms": False,
            "include_documentation": False,
        },
    )
    (result,) = response.results
    check(result.error_code, result.error_message, "all brokers")
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
        "IncrementalAlterConfigs",
        {
            "resources": [{"resource_type": BROKER_RESOURCE, "resource_name": "", "configs": entries}],
            "validate_only": dry_run,
        },
    )
    (result,) = response.responses
    check(result.error_code, result.error_message, "all brokers")


def _ask(address: tuple[str, int], name: str, fields: dict[str, Any]) -> Any:
    """The response to one request. CliError where there is none."""
    try:
        connection = DirectConnection(address, TIMEOUT_S)
        try:
            return connection.ask(name, fields)
        finally:
            connection.close()
    except Unanswered as error:
        text = f"{error}; settings for all brokers need a plain connection"
        raise CliError(text, ExitCode.UNREACHABLE) from None
