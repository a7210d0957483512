"""What one configuration name means: its type, default, valid values, and what we do with it.

Follows Kafka's ``ConfigDef``: the same parsing of values, the same checks and the same wording of refusals.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from enum import Enum, IntEnum
from typing import Any, NamedTuple

from ottla.numbers import INT_MAX, LONG_MAX, SHORT_MAX, format_double, parse_double, parse_whole, trim


class ConfigError(Exception):
    """A configuration that is refused; the message says which, and what would do."""


class ConfigType(IntEnum):
    """The types, numbered as in DescribeConfigs responses."""

    BOOLEAN = 1
    STRING = 2
    INT = 3
    SHORT = 4
    LONG = 5
    DOUBLE = 6
    LIST = 7
    CLASS = 8
    PASSWORD = 9


class Mode(Enum):
    """Whether and how a broker configuration may change while brokers run."""

    READ_ONLY = "read-only"
    PER_BROKER = "per-broker"
    CLUSTER_WIDE = "cluster-wide"


class Effect(Enum):
    """What this broker does with a configuration."""

    ACTED_ON = "acted on"
    # Nothing here that it could change: warned about at start where its value asks for what is missing.
    NONE = "no effect"
    # Setting it to anything but its default would promise what we do not do.
    REFUSED = "refused"


class Check(NamedTuple):
    """A rule for a value: the rule in words, and a function that returns what is wrong, or None."""

    text: str
    fault: Callable[[Any], str | None]


class ListCheck(NamedTuple):
    """A rule for a list (``ConfigDef.ValidList``): each item is one of ``allowed``, where that says any, and
    none is empty. An item that is given twice counts once."""

    allowed: tuple[str, ...] = ()
    empty_allowed: bool = True

    @property
    def text(self) -> str:
        """The rule in words."""
        return f"[{', '.join(self.allowed)}]" if self.allowed else ""

    def ensure(self, name: str, items: Sequence[str]) -> None:
        """ConfigError where the list is not valid."""
        if not items and not self.empty_allowed:
            allowed = self.text or "any non-empty value"
            raise ConfigError(f"Configuration '{name}' must not be empty. Valid values include: {allowed}")
        for item in items:
            if not item:
                raise ConfigError(f"Configuration '{name}' values must not be empty.")
            if self.allowed and item not in self.allowed:
                raise ConfigError(
                    f"Invalid value {shorten(item)} for configuration {name}: "
                    f"String must be one of: {', '.join(self.allowed)}"
                )


Rule = Check | ListCheck


class Definition(NamedTuple):
    """One configuration. ``note`` says why it has no effect here, or why it is refused."""

    name: str
    type: ConfigType
    default: Any
    importance: str
    doc: str
    check: Rule | None = None
    mode: Mode = Mode.READ_ONLY
    effect: Effect = Effect.ACTED_ON
    note: str = ""
    # Kafka leaves it out of its documentation; it can be set all the same.
    internal: bool = False
    # Where it has no effect: whether a value asks for nothing that is missing here. None: only the default.
    met: Callable[[Any], bool] | None = None

    def is_met(self, value: Any) -> bool:
        """Whether what ``value`` asks for is so, without anything being done for it."""
        return value == self.default or (self.met is not None and self.met(value))

    @property
    def sensitive(self) -> bool:
        return self.type is ConfigType.PASSWORD

    def parse(self, value: Any) -> Any:
        """The typed value for a text; ConfigError in Kafka's words where it is not valid."""
        typed = parse_value(self.name, value, self.type)
        if typed is None:
            return None
        if isinstance(self.check, ListCheck):
            typed = tuple(dict.fromkeys(typed))
            self.check.ensure(self.name, typed)
        elif self.check is not None:
            fault = self.check.fault(typed)
            if fault is not None:
                shown = "[hidden]" if self.sensitive else shorten(format_value(typed, self.type) or "")
                raise ConfigError(f"Invalid value {shown} for configuration {self.name}: {fault}")
        return typed

    def format(self, value: Any) -> str | None:
        """The text for a typed value, as the admin API shows it; None for null."""
        return format_value(value, self.type)


Table = Mapping[str, Definition]

_LARGEST = {ConfigType.INT: INT_MAX, ConfigType.SHORT: SHORT_MAX, ConfigType.LONG: LONG_MAX}
# Characters of a value that a message shows.
SHOWN_MAX = 200
# Between items of a list, in Java's regular expressions: \\s*,\\s*
_COMMA = re.compile(r"[ \t\n\v\f\r]*,[ \t\n\v\f\r]*")


def shorten(value: str) -> str:
    """A value for a message, which nobody reads to the end of, and which has to fit into an answer."""
    return value if len(value) <= SHOWN_MAX else f"{value[:SHOWN_MAX]}… ({len(value)} characters)"


def parse_value(name: str, value: Any, kind: ConfigType) -> Any:
    """Parse as Kafka's ``ConfigDef.parseType``; values that are typed already pass through."""
    if not isinstance(value, str):
        return value
    text = trim(value)
    if kind in _LARGEST:
        number = parse_whole(text, -_LARGEST[kind] - 1, _LARGEST[kind])
        if number is None:
            raise ConfigError(
                f"Invalid value {shorten(value)} for configuration {name}: Not a number of type {kind.name}"
            )
        return number
    if kind is ConfigType.BOOLEAN:
        if text.lower() not in ("true", "false"):
            raise ConfigError(
                f"Invalid value {shorten(value)} for configuration {name}: "
                "Expected value to be either true or false"
            )
        return text.lower() == "true"
    if kind is ConfigType.DOUBLE:
        double = parse_double(text)
        if double is None:
            raise ConfigError(
                f"Invalid value {shorten(value)} for configuration {name}: Not a number of type DOUBLE"
            )
        return double
    if kind is ConfigType.LIST:
        return tuple(_COMMA.split(text)) if text else ()
    return text


def format_value(value: Any, kind: ConfigType) -> str | None:
    """The text of a typed value, as Kafka's ``ConfigDef.convertToString``."""
    if value is None:
        return None
    if kind is ConfigType.BOOLEAN:
        return "true" if value else "false"
    if kind is ConfigType.LIST:
        return ",".join(value)
    return format_double(value) if kind is ConfigType.DOUBLE else str(value)


# As in Java a number that is none (NaN) is neither below nor above any bound.


def at_least(low: float) -> Check:
    return Check(f"[{low},...]", lambda value: f"Value must be at least {low}" if value < low else None)


def between(low: float, high: float) -> Check:
    def fault(value: float) -> str | None:
        if value < low:
            return f"Value must be at least {low}"
        return f"Value must be no more than {high}" if value > high else None

    return Check(f"[{low},...,{high}]", fault)


def one_of(*values: str) -> Check:
    names = ", ".join(values)
    return Check(f"[{names}]", lambda value: None if value in values else f"String must be one of: {names}")


def table(*definitions: Definition) -> dict[str, Definition]:
    """Definitions by name, sorted by it."""
    made = {definition.name: definition for definition in sorted(definitions)}
    assert len(made) == len(definitions), "a configuration is defined twice"
    return made
