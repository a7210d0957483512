"""What the control port offers, by method and path. docs/CONTROL.md describes each of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import unquote

from ottla import __version__
from ottla.env.network import show_address
from ottla.observe.http import Response
from ottla.testing.control import contents, faults, groups
from ottla.testing.control.asked import Asked
from ottla.testing.control.errors import ControlError, shown
from ottla.testing.control.values import answer

PREFIX = "/v1"
METHODS = ("GET", "POST", "DELETE")

Handler = Callable[[Asked], Awaitable[Response]]


class Endpoint(NamedTuple):
    """A part of ``path`` in braces stands for any name."""

    method: str
    path: str
    handler: Handler

    def matches(self, parts: list[str]) -> Mapping[str, str] | None:
        """What its variable parts stand for in a path; None where that is another one."""
        own = self.path.split("/")[1:]
        if len(own) != len(parts):
            return None
        found: dict[str, str] = {}
        for mine, given in zip(own, parts, strict=True):
            if mine.startswith("{"):
                found[mine[1:-1]] = unquote(given)
            elif mine != given:
                return None
        return found


async def about(asked: Asked) -> Response:
    asked.fields.end()
    node = asked.node
    return answer(
        {
            "version": __version__,
            "node_id": node.node_id,
            "listens_at": show_address(*node.address),
            "connections": node.connection_count,
            "endpoints": names(),
        }
    )


def endpoints(own: faults.FaultEndpoints) -> tuple[Endpoint, ...]:
    """All of them, for one port."""
    return (
        Endpoint("GET", "", about),
        Endpoint("POST", "/faults", own.add),
        Endpoint("GET", "/faults", own.list_),
        Endpoint("DELETE", "/faults", own.end_all),
        Endpoint("GET", "/faults/{id}", own.one),
        Endpoint("DELETE", "/faults/{id}", own.end),
        Endpoint("GET", "/requests", faults.requests),
        Endpoint("POST", "/requests/wait", faults.wait_for_requests),
        Endpoint("DELETE", "/requests", faults.forget_requests),
        Endpoint("POST", "/disconnect", contents.disconnect),
        Endpoint("POST", "/reset", contents.reset),
        Endpoint("GET", "/topics", contents.topics),
        Endpoint("POST", "/topics", contents.create_topic),
        Endpoint("DELETE", "/topics/{topic}", contents.delete_topic),
        Endpoint("POST", "/topics/{topic}/records", contents.produce),
        Endpoint("GET", "/topics/{topic}/records", contents.records),
        Endpoint("POST", "/topics/{topic}/wait", contents.wait_for_records),
        Endpoint("GET", "/groups", groups.all_groups),
        Endpoint("GET", "/groups/{group}/offsets", groups.offsets),
        Endpoint("POST", "/groups/{group}/wait", groups.wait_for_group),
        Endpoint("GET", "/transactions", contents.all_transactions),
        Endpoint("POST", "/transactions/{transactional_id}/abort", contents.abort),
    )


def names() -> list[str]:
    """All of them, as method and path."""
    return [f"{one.method} {PREFIX}{one.path}" for one in endpoints(faults.FaultEndpoints())]


def find(known: tuple[Endpoint, ...], method: str, path: str) -> tuple[Handler, Mapping[str, str]]:
    """The endpoint of a request, and what its path names. ControlError where there is none."""
    prefix, _, rest = path.rstrip("/").partition(PREFIX)
    parts = rest.split("/")[1:]
    allowed = []
    if not prefix and path.startswith(PREFIX) and (not rest or rest.startswith("/")):
        for endpoint in known:
            named = endpoint.matches(parts)
            if named is None:
                continue
            if endpoint.method == method:
                return endpoint.handler, named
            allowed.append(endpoint.method)
    if allowed:
        why = f"{shown(path)} has no {method}. It has {' and '.join(allowed)}."
        allow = (("Allow", ", ".join(allowed)),)
        raise ControlError(HTTPStatus.METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", why, allow)
    why = f"There is nothing at {shown(path)}. 'GET {PREFIX}' lists all paths."
    raise ControlError(HTTPStatus.NOT_FOUND, "UNKNOWN_PATH", why)
