"""Configurations that librdkafka's admin client refuses to ask for: those of all brokers together (a resource
with an empty name), of groups, of subscriptions to clients' metrics, and of a broker's loggers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ottla.cli.direct import DirectConnection, Unanswered, check
from ottla.cli.errors import CliError, ExitCode
from ottla.cli.rights import Right

# Connects to the broker that is to be asked.
Connect = Callable[[], DirectConnection]

# Types of resources, by the kind that `ottla config` calls them.
RESOURCES = {"broker": 4, "logger": 8, "client-metrics": 16, "group": 32}
SET, DELETE = 0, 1
# Values of a described configuration's source (DescribeConfigsResponse.ConfigSource).
DEFAULT = 5
SOURCES = {
    1: "topic",
    2: "broker",
    3: "all brokers",
    4: "static",
    DEFAULT: "default",
    6: "logger",
    7: "client metrics",
    8: "group",
}


def describe(connect: Connect, kind: str, name: str, *, all_: bool) -> list[dict[str, Any]]:
    """A resource's configurations as `ottla config describe` shows them; with ``all_`` the defaults, too."""
    resource = {"resource_type": RESOURCES[kind], "resource_name": name, "configuration_keys": None}
    response = _ask(
        connect,
        "DescribeConfigs",
        {"resources": [resource], "include_synonyms": False, "include_documentation": False},
        kind,
    )
    (result,) = response.results
    right = _right("describe-configs", kind, name)
    check(result.error_code, result.error_message, _what(kind, name), right)
    return [
        {
            "name": entry.name,
            "value": entry.value,
            "source": SOURCES.get(entry.config_source, "unknown"),
            "read_only": entry.read_only,
            "sensitive": entry.is_sensitive,
        }
        for entry in sorted(result.configs, key=lambda entry: str(entry.name))
        if all_ or entry.config_source != DEFAULT
    ]


def alter(connect: Connect, kind: str, name: str, configs: dict[str, str | None], *, dry_run: bool) -> None:
    """Set configurations of a resource; those whose value is None are removed."""
    entries = [
        {"name": config, "config_operation": DELETE if value is None else SET, "value": value}
        for config, value in configs.items()
    ]
    resource = {"resource_type": RESOURCES[kind], "resource_name": name, "configs": entries}
    response = _ask(
        connect, "IncrementalAlterConfigs", {"resources": [resource], "validate_only": dry_run}, kind
    )
    (result,) = response.responses
    right = _right("alter-configs", kind, name)
    check(result.error_code, result.error_message, _what(kind, name), right)


def _right(operation: str, kind: str, name: str) -> Right:
    return Right(operation, "group", name) if kind == "group" else Right(operation, "cluster")


def _what(kind: str, name: str) -> str:
    return "all brokers" if kind == "broker" and not name else f"{kind} {name!r}"


def _ask(connect: Connect, api: str, fields: dict[str, Any], kind: str) -> Any:
    """The response to one request. CliError where there is none."""
    try:
        connection = connect()
        try:
            return connection.ask(api, fields)
        finally:
            connection.close()
    except Unanswered as error:
        what = "all brokers" if kind == "broker" else f"a {kind}"
        raise CliError(f"settings of {what}: {error}", ExitCode.UNREACHABLE) from None
