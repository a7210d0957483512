"""What one configuration name means: its type, default, valid values, and what we do with it.

Follows Kafka's ``ConfigDef``: the same parsing of values, the same checks and the same wording of refusals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import Enum, IntEnum
from typing import Any, NamedTuple

INT_MAX = 2**31 - 1
LONG_MAX = 2**63 - 1


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


class Definition(NamedTuple):
    """One configuration. ``note`` says why it has no effect here, or why it is refused."""

    name: str
    type: ConfigType
    default: Any
    importance: str
    doc: str
    check: Check | None = None
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
        if self.check is not None and typed is not None:
            fault = self.check.fault(typed)
            if fault is not None:
                shown = format_value(typed, self.type)
                raise ConfigError(f"Invalid value {shown} for configuration {self.name}: {fault}")
        return typed

    def format(self, value: Any) -> str | None:
        """The text for a typed value, as the admin API shows it; None for null."""
        return format_value(value, self.type)


Table = Mapping[str, Definition]

_BITS = {ConfigType.INT: 31, ConfigType.SHORT: 15, ConfigType.LONG: 63}


def parse_value(name: str, value: Any, kind: ConfigType) -> Any:
    """Parse as Kafka's ``ConfigDef.parseType``; values that are typed already pass through."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    if kind in _BITS:
        number = _integer(text)
        limit = 1 << _BITS[kind]
        if number is None or not -limit <= number < limit:
            raise ConfigError(
                f"Invalid value {value} for configuration {name}: Not a number of type {kind.name}"
            )
        return number
    if kind is ConfigType.BOOLEAN:
        if text.lower() not in ("true", "false"):
            raise ConfigError(
                f"Invalid value {value} for configuration {name}: Expected value to be either true or false"
            )
        return text.lower() == "true"
    if kind is ConfigType.DOUBLE:
        try:
            return float(text)
        except ValueError:
            raise ConfigError(
                f"Invalid value {value} for configuration {name}: Not a number of type DOUBLE"
            ) from None
    if kind is ConfigType.LIST:
        return tuple(part.strip() for part in text.split(",")) if text else ()
    return text


def _integer(text: str) -> int | None:
    digits = text[1:] if text[:1] in ("+", "-") else text
    return int(text) if digits.isascii() and digits.isdigit() else None


def format_value(value: Any, kind: ConfigType) -> str | None:
    """The text of a typed value, as Kafka's ``ConfigDef.convertToString``."""
    if value is None:
        return None
    if kind is ConfigType.BOOLEAN:
        return "true" if value else "false"
    if kind is ConfigType.LIST:
        return ",".join(value)
    if kind is ConfigType.DOUBLE and value == 1.7976931348623157e308:
        return "1.7976931348623157E308"
    return str(value)


def at_least(low: float) -> Check:
    return Check(f"[{low},...]", lambda value: None if value >= low else f"Value must be at least {low}")


def between(low: float, high: float) -> Check:
    def fault(value: float) -> str | None:
        if value < low:
            return f"Value must be at least {low}"
        return None if value <= high else f"Value must be no more than {high}"

    return Check(f"[{low},...,{high}]", fault)


def one_of(*values: str) -> Check:
    names = ", ".join(values)
    return Check(f"[{names}]", lambda value: None if value in values else f"String must be one of: {names}")


def list_of(*values: str) -> Check:
    """A list whose items are all among ``values``, each at most once."""
    names = ", ".join(values)

    def fault(items: Iterable[str]) -> str | None:
        listed = list(items)
        if any(item not in values for item in listed):
            return f"String must be one of: {names}"
        return "Duplicate values are not allowed." if len(set(listed)) != len(listed) else None

    return Check(f"[{names}]", fault)


def table(*definitions: Definition) -> dict[str, Definition]:
    """Definitions by name, sorted by it."""
    made = {definition.name: definition for definition in sorted(definitions)}
    assert len(made) == len(definitions), "a configuration is defined twice"
    return made
