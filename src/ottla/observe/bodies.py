"""The fields of a request, for people (pure): as much of them as can be read, and none of what is a secret.

Bytes are never shown, records among them, only how many there are; and not even that of what logs somebody
in. Values of configurations are shown where the configuration is known, and is no password.
"""

from __future__ import annotations

import math
from typing import Any
from uuid import UUID

from ottla.config.topic import TOPIC
from ottla.config.values import BROKER
from ottla.observe.described import Head, bounded
from ottla.observe.requests import SIZE_BYTES, Seen
from ottla.security.secret import HIDDEN
from ottla.text import id_text
from ottla.wire.apis import PRODUCE, SASL_AUTHENTICATE, SERVED
from ottla.wire.messages import MalformedMessage, decode_request

# What is read of: a Produce may be larger, since its records are not looked at.
BODY_BYTES_MAX, BODY_ELEMENTS_MAX = 64 * 1024, 500
# What is shown: of each array, and in all.
ARRAY_MAX, VALUES_MAX = 20, 200

ALTER_USER_SCRAM_CREDENTIALS = 51
# What of it is a secret, or tells of one.
SECRETS = {SASL_AUTHENTICATE: {"auth_bytes"}, ALTER_USER_SCRAM_CREDENTIALS: {"salt", "salted_password"}}
# APIs with configurations: CreateTopics, AlterConfigs, IncrementalAlterConfigs.
WITH_CONFIGS = frozenset((19, 33, 44))


def body_of(seen: Seen, head: Head) -> dict[str, Any] | str:
    """The fields by name, in part; or why there are none."""
    whole = len(seen.frame) + SIZE_BYTES == seen.request_bytes
    if not head.body_offset or (seen.api_key, head.version) not in SERVED or not whole:
        return "not read"
    if len(seen.frame) > BODY_BYTES_MAX and seen.api_key != PRODUCE:
        return "too large to be shown"
    assert head.version is not None
    try:
        request = decode_request(
            seen.api_key, head.version, seen.frame, head.body_offset, elements_max=BODY_ELEMENTS_MAX
        )
    except MalformedMessage:
        return "malformed, or too large to be shown"
    fields: dict[str, Any] = _Shown(seen.api_key).of(request)
    return fields


class _Shown:
    """One request's fields."""

    def __init__(self, api_key: int) -> None:
        self._secrets = SECRETS.get(api_key, set())
        self._has_configs = api_key in WITH_CONFIGS
        self._left = VALUES_MAX

    def of(self, value: Any) -> Any:
        self._left -= 1
        if self._left < 0:
            return "…"
        names = getattr(value, "_fields", None)
        if names is not None:
            return {name: self._field(value, name, inner) for name, inner in zip(names, value, strict=True)}
        if isinstance(value, tuple):
            shown = [self.of(inner) for inner in value[:ARRAY_MAX]]
            return shown if len(value) <= ARRAY_MAX else [*shown, f"… {len(value) - ARRAY_MAX} more"]
        if isinstance(value, bytes | bytearray | memoryview):
            return f"[{len(value)} bytes]"
        if isinstance(value, str):
            return bounded(value)
        if isinstance(value, UUID):
            return id_text(value)
        if isinstance(value, float) and not math.isfinite(value):
            return str(value)
        return value

    def _field(self, element: Any, name: str, value: Any) -> Any:
        if name in self._secrets:
            return HIDDEN
        if self._has_configs and name == "value" and value is not None and not _is_harmless(element.name):
            return HIDDEN
        return self.of(value)


def _is_harmless(config: str) -> bool:
    known = TOPIC.get(config) or BROKER.get(config)
    return known is not None and not known.sensitive
