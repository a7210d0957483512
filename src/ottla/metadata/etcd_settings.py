"""How etcd is reached: what a store's URL says of it (``stores.parse_store``)."""

from __future__ import annotations

from dataclasses import dataclass

TIMEOUT_MS_DEFAULT = 6_000


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdSettings:
    """How to reach etcd. Files are read when the store is opened.

    ``timeout_ms`` is how long an operation may take altogether; one member gets a third of it to answer.
    """

    endpoints: tuple[str, ...]
    cluster: str
    tls: bool = False
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    user: str | None = None
    password_file: str | None = None
    timeout_ms: int = TIMEOUT_MS_DEFAULT
