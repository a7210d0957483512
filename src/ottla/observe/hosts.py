"""By which names this machine may be asked for what only programs on it are to read (pure).

A page in a browser has a name that can be made to point to this machine (DNS rebinding): its requests reach
an address that others do not, and what they are answered the page may read. The name shows in Host.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from ipaddress import ip_address

from ottla.env.network import show_address
from ottla.observe.request import Request

_PORT = re.compile(r":[0-9]{1,5}$")


def name_of(host: str) -> str:
    """What a Host header names, without its port and an IPv6 address's brackets."""
    return _PORT.sub("", host).lower().removeprefix("[").removesuffix("]")


def is_this_machine(host: str) -> bool:
    """Whether a Host header names this machine in a way that no name server decides."""
    name = name_of(host)
    if name == "localhost":
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def guard(listened: str, bound: tuple[str, int]) -> Callable[[Request], str | None] | None:
    """What says why a request is not answered by a server that is bound there: None where others reach it,
    who know it by names that are not known here. ``listened``: the host that it was told to listen at."""
    return partial(_why_foreign, listened.lower()) if is_this_machine(show_address(*bound)) else None


def _why_foreign(listened: str, request: Request) -> str | None:
    # Without Host it is of no browser.
    host = request.headers.get("host")
    if host is None or is_this_machine(host) or name_of(host) == listened:
        return None
    return (
        "the header Host has a name that is not this machine's own: ask for 127.0.0.1 or localhost, or have "
        "metrics.listener name an address that others reach"
    )
