"""What one listener is set to: ``listener.name.NAME.x`` goes before ``x`` (KIP-103, KIP-226).

Some settings are also a mechanism's: ``listener.name.NAME.MECHANISM.x`` goes before both
(``ChannelBuilders``, ``JaasContext``).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Protocol

from ottla.config.definition import ConfigError, Definition, Effect

# Settings that a listener may have for each of its SASL mechanisms.
OF_MECHANISMS = frozenset(
    ("connections.max.reauth.ms", "sasl.jaas.config", "sasl.server.callback.handler.class")
)

# Settings that a listener may have for itself, beside those that begin as follows.
OF_LISTENERS = frozenset((
    "connection.failed.authentication.delay.ms", "connections.max.idle.ms", "connections.max.reauth.ms",
    "max.connection.creation.rate", "max.connections", "num.network.threads", "socket.request.max.bytes",
))  # fmt: skip
_BEGINNINGS = ("ottla.", "sasl.", "ssl.")


class Given(Protocol):
    """The configuration of a broker."""

    static: dict[str, str]
    dynamic_cluster: Mapping[str, str]
    dynamic_broker: Mapping[str, str]

    def get(self, name: str) -> Any:
        """The value in force for listeners that have none of their own."""
        ...


class ListenerSettings:
    """The settings in force for a listener, as they are at the moment."""

    def __init__(self, given: Given, listener: str, definitions: Mapping[str, Definition]) -> None:
        self.listener = listener
        self._given = given
        self._definitions = definitions
        self._prefix = f"listener.name.{listener.lower()}."

    def get(self, name: str) -> Any:
        """The typed value. KeyError for a name that is not Kafka's."""
        found = self.own(name)
        return self._given.get(name) if found is None else found

    def own(self, name: str) -> Any:
        """The typed value that is this listener's alone; None where it has none of its own."""
        return self._own(name, name)

    def of_mechanism(self, mechanism: str, name: str) -> Any:
        """The typed value for a SASL mechanism, which may have one of its own (``OF_MECHANISMS``)."""
        assert name in OF_MECHANISMS
        found = self._own(f"{mechanism.lower()}.{name}", name)
        return self.get(name) if found is None else found

    def _own(self, suffix: str, name: str) -> Any:
        key = self._prefix + suffix
        given = self._given
        for source in (given.dynamic_broker, given.dynamic_cluster, given.static):
            text = source.get(key)
            if text is not None:
                return self._definitions[name].parse(text)
        return None

    def changed(self, names: frozenset[str]) -> frozenset[str]:
        """Those of the settings, without their prefix, that a change of ``names`` may have changed."""
        prefix = self._prefix
        return frozenset(
            name.removeprefix(prefix) for name in names if name.startswith(prefix) or not is_own(name)
        )


def is_own(name: str) -> bool:
    """Whether a name is about one listener."""
    return name.startswith("listener.name.")


def listeners_own_changed(old: Mapping[str, str], new: Mapping[str, str]) -> frozenset[str]:
    """The names of listeners' own settings that differ."""
    return frozenset(
        name for name in old.keys() | new.keys() if is_own(name) and old.get(name) != new.get(name)
    )


def subject(name: str, definitions: Mapping[str, Definition]) -> Definition | None:
    """The definition of what ``listener.name.NAME.x`` or ``listener.name.NAME.MECHANISM.x`` sets; None where
    that is no listener's name, or nothing that listeners could be set to."""
    parts = name.split(".", 3)
    if parts[:2] != ["listener", "name"] or len(parts) < 4:
        return None
    rest = parts[3]
    if rest in definitions:
        return definitions[rest]
    _, _, of_mechanism = rest.partition(".")
    return definitions[of_mechanism] if of_mechanism in OF_MECHANISMS else None


def of_no_listener(
    names: Iterable[str], definitions: Mapping[str, Definition], listeners: Collection[str]
) -> list[str]:
    """A warning for each of ``names`` that sets something for a listener which is none of ``listeners``, or
    which is not looked for as it is written: Kafka ignores both."""
    warnings = []
    for name in names:
        if is_own(name) and subject(name, definitions) is not None:
            listener = name.split(".", 3)[2]
            if listener in listeners:
                continue
            here = f"there is no listener {listener.upper()} in listeners"
            if listener.lower() in listeners:
                here = f"write listener.name.{listener.lower()}, in small letters"
            warnings.append(f"{name} has no effect: {here}")
    return warnings


def may_differ(name: str) -> bool:
    """Whether one listener may be set to something else than the others."""
    return name in OF_LISTENERS or name.startswith(_BEGINNINGS)


def check_own(given: Mapping[str, str], definitions: Mapping[str, Definition]) -> None:
    """ConfigError where a listener's own value is not valid, or asks for what is not here."""
    for name, text in given.items():
        entry = subject(name, definitions)
        if entry is None:
            continue
        try:
            value = entry.parse(text)
        except ConfigError as error:
            raise ConfigError(f"{name}: {error}") from error
        if entry.effect is Effect.REFUSED and value != entry.default:
            raise ConfigError(f"{name}: not supported here: {entry.note}")
