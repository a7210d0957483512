"""Where a cluster's metadata store is: its URL, and opening it (docs/STORE.md).

    etcd://h1:2379,h2:2379,h3:2379
    etcds://h1,h2,h3?ca=ca.pem&cert=node.pem&key=node.key&user=ottla&password-file=secret&timeout-ms=6000

``etcds`` is TLS. Nodes that one command runs on this machine have ``unix:FOLDER``, the socket of the store
that it keeps for them. Nothing that only etcd needs is imported before a store is opened.
"""

from __future__ import annotations

from urllib.parse import parse_qsl, unquote

from ottla.addresses import parse_address
from ottla.env.clock import Clock
from ottla.env.network import show_address
from ottla.extras import needed
from ottla.metadata.etcd_settings import TIMEOUT_MS_DEFAULT, EtcdSettings
from ottla.metadata.store import MetadataStore, StoreError

PORT_DEFAULT = 2379
TIMEOUT_MS_MIN = 300
UNIX = "unix:"
FORM = "etcd://HOST:PORT,HOST:PORT,... (etcds:// for TLS)"
_PARAMETERS = ("ca", "cert", "key", "user", "password-file", "timeout-ms")


def parse_store(url: str, cluster: str) -> EtcdSettings:
    """What a store's URL says. ValueError, saying what to write, where it is not one."""
    shown = _shown(url)
    # Several hosts are no host to urllib: since CVE-2025-0938 (Python 3.11.12, 3.12.9, 3.13.2) it refuses
    # what stands before a bracket.
    scheme, _, rest = url.partition("://")
    if scheme.lower() not in ("etcd", "etcds"):
        raise ValueError(f"store {shown!r}: write {FORM}")
    rest, _, fragment = rest.partition("#")
    rest, _, query = rest.partition("?")
    hosts, _, path = rest.partition("/")
    # A password may have a character that ends the hosts.
    if "@" in unquote(hosts + path + fragment):
        raise ValueError(f"store {shown!r}: write ?user=NAME&password-file=FILE, not NAME:PASSWORD@")
    if path.strip("/") or fragment:
        raise ValueError(
            f"store {shown!r}: nothing comes after the hosts but ?NAME=VALUE; name the cluster apart"
        )
    if not cluster or any(character in cluster for character in "/\0"):
        raise ValueError(f"cluster {cluster!r}: a cluster's name is not empty and has no '/'")
    given = _parameters(shown, query)
    endpoints = tuple(_endpoint(shown, text) for text in hosts.split(","))
    tls = scheme.lower() == "etcds"
    if not tls and given.keys() & {"ca", "cert", "key"}:
        raise ValueError(f"store {shown!r}: write etcds:// where there are certificates")
    if ("cert" in given) != ("key" in given):
        raise ValueError(f"store {shown!r}: cert and key go together")
    if ("user" in given) != ("password-file" in given):
        raise ValueError(f"store {shown!r}: user and password-file go together")
    return EtcdSettings(
        endpoints=tuple(dict.fromkeys(endpoints)),
        cluster=cluster,
        tls=tls,
        ca=given.get("ca"),
        cert=given.get("cert"),
        key=given.get("key"),
        user=given.get("user"),
        password_file=given.get("password-file"),
        timeout_ms=_timeout_ms(shown, given.get("timeout-ms")),
    )


async def open_store(url: str, *, cluster: str, clock: Clock) -> MetadataStore:
    """The store of ``cluster`` at ``url``. It is not asked for anything yet: it may be out of reach.

    ValueError for a URL that is none; StoreError where a file that it names cannot be read.
    MissingExtra where the packages for etcd are not installed.
    """
    if url.startswith(UNIX):
        from ottla.metadata.socket_store import SocketStore

        return SocketStore(url.removeprefix(UNIX), clock)
    settings = parse_store(url, cluster)
    with needed(f"the store {url!r}"):
        from ottla.metadata.etcd import EtcdStore

    try:
        return EtcdStore(settings, clock)
    except OSError as error:
        raise StoreError(f"store {url!r}: {error}") from error


def _endpoint(shown: str, text: str) -> str:
    found = parse_address(text, port_min=1, port_default=PORT_DEFAULT)
    if found is None:
        raise ValueError(f"store {shown!r}: {text!r} is no HOST:PORT; write {FORM}")
    return show_address(*found)


def _parameters(shown: str, query: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        raise ValueError(f"store {shown!r}: write ?NAME=VALUE&NAME=VALUE after the hosts") from None
    given: dict[str, str] = {}
    for name, value in pairs:
        if name not in _PARAMETERS:
            raise ValueError(f"store {shown!r}: no parameter {name!r}; there are {', '.join(_PARAMETERS)}")
        if name in given or not value:
            raise ValueError(f"store {shown!r}: {name} needs one value")
        given[name] = value
    return given


def _timeout_ms(shown: str, text: str | None) -> int:
    if text is None:
        return TIMEOUT_MS_DEFAULT
    if not text.isascii() or not text.isdigit() or int(text) < TIMEOUT_MS_MIN:
        raise ValueError(f"store {shown!r}: timeout-ms is a number of milliseconds from {TIMEOUT_MS_MIN} on")
    return int(text)


def _shown(url: str) -> str:
    """A URL for a message, without what may be a password."""
    _, at, tail = unquote(url).rpartition("@")
    head, colon, _ = url.partition("://")
    return url if not at else f"{head if colon else ''}{colon}...@{tail}"
