"""Asks nodes' metrics listeners about their clients: HTTP, with short deadlines and bounded answers.

Where they listen the nodes say themselves (`metrics.listener`), or the user does. What comes is somebody's
answer: it is taken for what it should be only as far as it is.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from http.client import HTTPConnection, HTTPException
from typing import Any

from ottla.addresses import parse_address
from ottla.cli.client import parse_bootstrap
from ottla.cli.errors import CliError
from ottla.cli.top.nodes import Ask, Nodes, at_once
from ottla.cli.top.snapshot import Connection, Listened, Snapshot
from ottla.config.observing import LISTENER
from ottla.errors import ErrorCode

Address = tuple[str, int]

PATH = "/clients"
TIMEOUT_S = 2.0
ANSWER_BYTES_MAX = 256 * 1024
CONNECTIONS_MAX = 100
TEXT_CHARACTERS_MAX = 256
# Nodes are asked where they listen so often.
AGAIN_S = 30.0
BROKER_RESOURCE = 4
EVERYWHERE = ("0.0.0.0", "::")


class Listening:
    """Called with each snapshot, by the taker."""

    def __init__(self, given: Sequence[Address] = (), now_s: Callable[[], float] = time.monotonic) -> None:
        """``given``: where to ask; if that is nowhere, nodes are asked where they listen."""
        self._given = list(given)
        self._now_s = now_s
        self._found: dict[int, Address] = {}
        self._notes: dict[int, str] = {}
        self._asked_s: float | None = None
        self._asked: frozenset[int] = frozenset()

    def __call__(self, snapshot: Snapshot, nodes: Nodes) -> Listened:
        alive = frozenset(node for node, broker in snapshot.brokers.items() if not broker.is_fenced)
        if not self._given:
            self._look(snapshot, nodes, alive)
        addresses = self._given or [self._found[node] for node in sorted(self._found) if node in alive]
        notes = [self._notes[node] for node in sorted(self._notes) if node in alive]
        documents: list[Any] = []
        answers = at_once([partial(fetch, address) for address in addresses])
        for address, answer in zip(addresses, answers, strict=True):
            if isinstance(answer, str):
                notes.append(f"{address[0]}:{address[1]}: {answer}")
            else:
                documents.append(answer)
        return Listened(
            tuple(one for document in documents for one in connections(document)),
            tuple(f"{host}:{port}" for host, port in addresses),
            tuple(notes),
        )

    def _look(self, snapshot: Snapshot, nodes: Nodes, alive: frozenset[int]) -> None:
        now_s = self._now_s()
        if self._asked == alive and self._asked_s is not None and now_s - self._asked_s < AGAIN_S:
            return
        self._asked_s, self._asked = now_s, alive
        self._found, self._notes = {}, {}
        for node, value in nodes.ask_each({node: _configured(node) for node in alive}).items():
            if value == _MAY_NOT:
                self._notes[node] = (
                    f"node {node}: whether it has {LISTENER} needs describe-configs of the cluster"
                )
                continue
            address = parse_address(value) if value else None
            if address is None or not address[1]:
                self._notes[node] = (
                    f"node {node} has no {LISTENER}" if address is None else f"node {node} says no port"
                )
            else:
                host = snapshot.brokers[node].host if address[0] in EVERYWHERE else address[0]
                self._found[node] = (host, address[1])


# In place of a value: whoever asks has no right to it.
_MAY_NOT = "-"


def _configured(node: int) -> Callable[[Ask], str | None]:
    resource = {
        "resource_type": BROKER_RESOURCE,
        "resource_name": str(node),
        "configuration_keys": [LISTENER],
    }
    fields = {"resources": [resource], "include_synonyms": False, "include_documentation": False}

    def work(ask: Ask) -> str | None:
        for result in ask("DescribeConfigs", fields).results:
            if result.error_code == ErrorCode.cluster_authorization_failed:
                return _MAY_NOT
            for entry in result.configs:
                if entry.name == LISTENER and entry.value:
                    return str(entry.value)
        return None

    return work


def fetch(address: Address) -> dict[str, Any] | str:
    """The document, or why there is none."""
    connection = HTTPConnection(*address, timeout=TIMEOUT_S)
    try:
        connection.request("GET", PATH)
        response = connection.getresponse()
        body = response.read(ANSWER_BYTES_MAX + 1)
        if response.status != 200:
            return f"it answers {response.status} to {PATH}"
        if len(body) > ANSWER_BYTES_MAX:
            return "its answer is too large"
        document = json.loads(body)
    except OSError as error:
        return (error.strerror or str(error)).lower()
    except (HTTPException, ValueError, RecursionError):
        return "its answer is not what it should be"
    finally:
        connection.close()
    return document if isinstance(document, dict) else "its answer is not what it should be"


def connections(document: Mapping[str, Any]) -> list[Connection]:
    """What a document says, as far as it says it as it should."""
    clients = document.get("clients")
    over_s = _number(document.get("over_ms")) / 1000
    if not isinstance(clients, list) or over_s <= 0:
        return []
    return [
        Connection(
            node_id=_whole(document.get("node_id")),
            host=_text(one.get("host")),
            port=_whole(one.get("port")),
            client_id=_text(one.get("client_id")),
            principal=_text(one.get("principal")),
            listener=_text(one.get("listener")),
            requests_per_s=_number(one.get("requests")) / over_s,
            busy_ms_per_s=_number(one.get("busy_ms")) / over_s,
            request_bytes_per_s=_number(one.get("request_bytes")) / over_s,
            response_bytes_per_s=_number(one.get("response_bytes")) / over_s,
            unsent_bytes=_whole(one.get("unsent_bytes")),
            oldest_unanswered_ms=None
            if one.get("oldest_unanswered_ms") is None
            else _number(one["oldest_unanswered_ms"]),
        )
        for one in clients[:CONNECTIONS_MAX]
        if isinstance(one, dict)
    ]


NUMBER_MAX = 2.0**63


def _number(value: Any) -> float:
    """A number that is not negative; 0 for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= NUMBER_MAX:
        return 0.0
    return float(value)


def _whole(value: Any) -> int:
    return int(_number(value))


def _text(value: Any) -> str:
    return value[:TEXT_CHARACTERS_MAX] if isinstance(value, str) else ""


def parse_addresses(text: str) -> list[Address]:
    """HOST:PORT, several with commas. CliError (usage) where it is something else."""
    try:
        return parse_bootstrap(text)
    except CliError as error:
        raise CliError(
            str(error).replace("--bootstrap", "--metrics").replace("9092", "9308"), error.code
        ) from None
