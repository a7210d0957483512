"""The fields of Kafka's messages, as kio's dataclasses define them.

kio turns times into ``timedelta`` and drops the unit from the name; we keep integers and Kafka's name, so
``timeout`` is ``timeout_ms`` here.
"""

from __future__ import annotations

import dataclasses
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from ottla.wire import primitives

# Fixed-size types by their struct code.
FIXED = {
    "int8": "b",
    "int16": "h",
    "int32": "i",
    "int64": "q",
    "uint8": "B",
    "uint16": "H",
    "uint32": "I",
    "uint64": "Q",
    "float64": "d",
    "bool": "?",
    "error_code": "h",
    "timedelta_i32": "i",
    "timedelta_i64": "q",
    "datetime_i64": "q",
    "uuid": "16s",
}
TIMES = ("timedelta_i32", "timedelta_i64", "datetime_i64")


@dataclasses.dataclass(frozen=True, slots=True)
class Field:
    """One field of a message in one version, as the compiler needs it."""

    name: str  # Kafka's, in snake case
    kind: str  # kio's kafka_type, or "entity"
    entity: type[Any] | None
    array: bool
    nullable: bool  # the array if it is one, else the value
    tag: int | None
    default: Any  # dataclasses.MISSING where it must be given


def describe(entity: type[Any]) -> list[Field]:
    """The fields of a kio dataclass, in wire order."""
    return [_describe_field(field) for field in dataclasses.fields(entity)]


def _describe_field(field: dataclasses.Field[Any]) -> Field:
    annotation, nullable = _strip_none(field.type)
    array = get_origin(annotation) is tuple
    if array:
        annotation, _ = _strip_none(get_args(annotation)[0])
    nested = dataclasses.is_dataclass(annotation)
    kind = "entity" if nested else field.metadata["kafka_type"]
    if kind == "uuid" and not array:
        nullable = False  # kio's None is Kafka's zero UUID, not a null
    return Field(
        name=f"{field.name}_ms" if kind in TIMES else field.name,
        kind=kind,
        entity=annotation if nested else None,
        array=array,
        nullable=nullable,
        tag=field.metadata.get("tag"),
        default=_plain_default(field, kind, array, nullable),
    )


def _strip_none(annotation: Any) -> tuple[Any, bool]:
    if get_origin(annotation) in (Union, UnionType):
        (inner,) = [a for a in get_args(annotation) if a is not NoneType]
        return inner, True
    return annotation, False


def _plain_default(field: dataclasses.Field[Any], kind: str, array: bool, nullable: bool) -> Any:
    """kio's default as the plain value that our messages carry."""
    default = field.default
    if default is dataclasses.MISSING:
        if field.name == "throttle_time":
            return 0  # nobody is throttled unless a response says so
        if field.metadata.get("tag") is None:
            return default
        if array:
            return ()
        return None if nullable else ZERO.get(kind, default)
    if kind in TIMES:
        # kio's nullable times are Kafka's -1; the others are a count of milliseconds.
        return -1 if default is None else round(default.total_seconds() * 1000)
    if kind == "uuid" and not array:
        return default or primitives.UUID_ZERO
    if kind == "entity" and not array and default is not None:
        return {}
    if kind in FIXED and not array and default is not None and not isinstance(default, bool | float):
        return int(default)
    return default


# What a field of each kind is where nothing is said.
ZERO: dict[str, Any] = dict.fromkeys(FIXED, 0) | {
    "uuid": primitives.UUID_ZERO,
    "bool": False,
    "string": "",
    "bytes": b"",
    "records": b"",
    "entity": {},
}
