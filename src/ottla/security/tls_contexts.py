"""The contexts of one listener, and how others take their place while it is open (``SslFactory``).

Keys and trusted certificates may change, in settings or in their files, and so may what else clients have to
agree to, which Kafka takes note of at the next start. Connections that are there keep what they have.
"""

from __future__ import annotations

import ssl
from typing import Any, NamedTuple

from ottla.config import ConfigError
from ottla.config.tls import LIVE
from ottla.env.key_files import Mark, marks
from ottla.security.stores import Get, files_of
from ottla.security.tls import Material, check_follows, check_nodes, client_context, read, server_context


class Loaded(NamedTuple):
    """What is in force, or could be."""

    material: Material
    server: ssl.SSLContext
    # For connections to other nodes' listeners of the same name; None where nodes do not use it.
    client: ssl.SSLContext | None
    # The files as they were before they were read.
    marks: tuple[Mark, ...]
    # What the settings said at that time.
    values: dict[str, Any]


class TlsContexts:
    """One listener's. ``server`` and ``client`` are asked for each connection."""

    def __init__(
        self, listener: str, get: Get, *, for_nodes: bool = False, client_auth: str | None = None
    ) -> None:
        """``get``: the listener's settings, as they are at the moment. ``for_nodes``: nodes connect to each
        other by it. ``client_auth``: goes before ssl.client.auth, which SASL_SSL listeners must have of their
        own. ConfigError says which listener and what is wrong."""
        self.listener = listener
        self._get = get
        self._for_nodes = for_nodes
        self._client_auth = client_auth
        self._dn_may_change = bool(get("ssl.allow.dn.changes"))
        self._san_may_change = bool(get("ssl.allow.san.changes"))
        # Files that were found to be no good: they are not tried again before they change.
        self._refused: tuple[Mark, ...] | None = None
        self._loaded = self._load(get)

    @property
    def material(self) -> Material:
        """What the contexts were made of."""
        return self._loaded.material

    def server(self) -> ssl.SSLContext:
        """For whoever connects now."""
        return self._loaded.server

    def client(self) -> ssl.SSLContext:
        """For a connection to another node, where they connect to each other by this listener."""
        assert self._loaded.client is not None
        return self._loaded.client

    def check(self, get: Get) -> None:
        """ConfigError where these settings could not take the place of those in force."""
        if self._values(get) != self._loaded.values or marks(files_of(get)) != self._loaded.marks:
            self._next(get)

    def changed(self) -> Loaded | None:
        """What the files and settings have become; None where they are as they were, or as they were refused
        before. ConfigError where that will not do. It reads files, so it may be called in a thread."""
        now = marks(files_of(self._get))
        if now == self._refused:
            return None
        if now == self._loaded.marks and self._values(self._get) == self._loaded.values:
            return None
        try:
            return self._next(self._get)
        except ConfigError:
            self._refused = now
            raise

    def take(self, loaded: Loaded) -> None:
        """Put it in force for connections to come."""
        self._loaded = loaded
        self._refused = None

    def _next(self, get: Get) -> Loaded:
        old, new = self._loaded, self._load(get)
        try:
            check_follows(
                old.material,
                new.material,
                dn_may_change=self._dn_may_change,
                san_may_change=self._san_may_change,
            )
            if new.client is not None and old.client is not None:
                # While some nodes have the one and some the other.
                unnamed = (client_context(one.material, checks_host=False) for one in (old, new))
                for server, client in zip((new.server, old.server), unnamed, strict=True):
                    check_nodes(server, client)
        except ConfigError as error:
            raise ConfigError(f"listener {self.listener}: {error}") from error
        return new

    def _load(self, get: Get) -> Loaded:
        seen = marks(files_of(get))
        values = self._values(get)
        try:
            material = read(get, self._client_auth)
            server = server_context(material)
            client = client_context(material) if self._for_nodes else None
            if client is not None:
                check_nodes(server, client_context(material, checks_host=False))
        except ConfigError as error:
            raise ConfigError(f"listener {self.listener}: {error}") from error
        return Loaded(material, server, client, seen, values)

    @staticmethod
    def _values(get: Get) -> dict[str, Any]:
        return {name: get(name) for name in LIVE}
