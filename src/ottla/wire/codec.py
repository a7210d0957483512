"""Compiles a reader and a writer for each kio message class.

kio gives us Kafka's message definitions as dataclasses. Its own reader is native, but ends the process when
an array's length lies; its writer is interpreted and takes 6 µs for the smallest Produce response. So both
are generated here from the definitions, as straight-line Python with neighbouring fixed-size fields packed
by one ``struct`` call: see docs/decisions/0002-codec.md for the figures.

Names are Kafka's in snake case. kio turns times into ``timedelta`` and drops the unit from the name; we keep
integers and Kafka's name, so ``timeout`` is ``timeout_ms`` here. A reader makes named tuples; a writer takes
nested dicts, ignores fields that its version lacks, and fills in Kafka's defaults.
"""

from __future__ import annotations

import dataclasses
import struct
from collections import namedtuple
from collections.abc import Callable
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin
from uuid import UUID

from ottla.types import Buffer
from ottla.wire import primitives

# (buffer, offset) -> (message, offset behind it)
Reader = Callable[[Buffer, int], tuple[Any, int]]
# (fields, pieces): appends the encoded pieces in order
Writer = Callable[[dict[str, Any], list[Any]], None]

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
        return None if nullable else _ZERO.get(kind, default)
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


_ZERO: dict[str, Any] = dict.fromkeys(FIXED, 0) | {
    "uuid": primitives.UUID_ZERO,
    "bool": False,
    "string": "",
    "bytes": b"",
    "records": b"",
    "entity": {},
}


class _Source:
    """Lines of a function under construction, and the objects that they refer to."""

    def __init__(self, head: str) -> None:
        self.lines = [head]
        self.names: dict[str, Any] = {}

    def add(self, line: str, indent: int = 1) -> None:
        self.lines.append("    " * indent + line)

    def bind(self, prefix: str, value: Any) -> str:
        name = f"{prefix}{len(self.names)}"
        self.names[name] = value
        return name

    def build(self, name: str) -> Any:
        scope = dict(self.names)
        exec("\n".join(self.lines), scope)
        return scope[name]


_readers: dict[type[Any], Reader] = {}
_writers: dict[type[Any], Writer] = {}


def reader(entity: type[Any]) -> Reader:
    """The compiled reader of a kio class. It raises one of ``primitives.READ_ERRORS`` on bad bytes."""
    if entity not in _readers:
        _readers[entity] = _compile_reader(entity)
    return _readers[entity]


def writer(entity: type[Any]) -> Writer:
    """The compiled writer of a kio class. KeyError names a field that must be given."""
    if entity not in _writers:
        _writers[entity] = _compile_writer(entity)
    return _writers[entity]


def _runs(fields: list[Field]) -> list[list[Field]]:
    """Group neighbouring fixed-size fields, so that one struct call serves each group."""
    runs: list[list[Field]] = []
    for field in fields:
        fixed = field.kind in FIXED and not field.array
        if fixed and runs and runs[-1][0].kind in FIXED and not runs[-1][0].array:
            runs[-1].append(field)
        else:
            runs.append([field])
    return runs


# ---------------------------------------------------------------- readers


def _compile_reader(entity: type[Any]) -> Reader:
    fields = describe(entity)
    flexible = entity.__flexible__
    plain = [f for f in fields if f.tag is None]
    tagged = [f for f in fields if f.tag is not None]
    source = _Source("def read(buf, o):")
    source.names |= vars(primitives)
    source.add("end = len(buf)")
    for run in _runs(plain):
        _read_run(source, run, flexible, 1)
    if tagged:
        _read_tagged(source, tagged)
    elif flexible:
        source.add("if buf[o]: o = skip_tags(buf, o)")
        source.add("else: o += 1")
    message = namedtuple(entity.__name__, [f.name for f in fields])  # type: ignore[misc]
    source.names |= {"_new": tuple.__new__, "_message": message}
    values = ", ".join(f"v_{f.name}" for f in fields) + ("," if len(fields) == 1 else "")
    source.add(f"return _new(_message, ({values})), o")
    return source.build("read")  # type: ignore[no-any-return]


def _read_tagged(source: _Source, tagged: list[Field]) -> None:
    for field in tagged:
        value = source.bind("default", _reader_default(field))
        source.add(f"v_{field.name} = {value}")
    source.add("n = buf[o]; o += 1")
    source.add("if n >= 128: n, o = read_uvarint(buf, o, n)")
    source.add("for _ in range(n):")
    source.add("tag, o, stop = read_tag(buf, o)", 2)
    for i, field in enumerate(tagged):
        source.add(f"{'el' if i else ''}if tag == {field.tag}:", 2)
        # A tagged field's value is never null by itself, but a nullable type keeps its own encoding.
        _read_run(source, [field], True, 3)
    source.add("o = stop", 2)


def _reader_default(field: Field) -> Any:
    """What an absent tagged field reads as."""
    if field.kind == "entity" and not field.array and field.default == {} and field.entity is not None:
        inner = describe(field.entity)
        message = namedtuple(field.entity.__name__, [f.name for f in inner])  # type: ignore[misc]
        return message(*[_reader_default(f) for f in inner])
    return _ZERO[field.kind] if field.default is dataclasses.MISSING else field.default


def _read_run(source: _Source, run: list[Field], flexible: bool, indent: int) -> None:
    if len(run) == 1 and (run[0].array or run[0].kind not in FIXED):
        _read_field(source, run[0], flexible, indent)
        return
    layout = struct.Struct(">" + "".join(FIXED[f.kind] for f in run))
    unpack = source.bind("unpack", layout.unpack_from)
    targets = "".join(f"v_{f.name}, " for f in run)
    source.add(f"{targets}= {unpack}(buf, o); o += {layout.size}", indent)
    for field in run:
        if field.kind == "uuid":
            uuid = source.bind("uuid", _read_uuid)
            source.add(f"v_{field.name} = {uuid}(v_{field.name})", indent)


def _read_uuid(data: bytes) -> UUID:
    return UUID(bytes=data)


def _read_field(source: _Source, field: Field, flexible: bool, indent: int) -> None:
    target = f"v_{field.name}"
    if field.array:
        _read_array(source, field, target, flexible, indent)
    elif field.kind == "entity":
        assert field.entity is not None
        read = source.bind("read", reader(field.entity))
        if field.nullable:
            source.add("o += 1", indent)
            source.add(f"if buf[o - 1] > 127: {target} = None", indent)
            source.add(f"else: {target}, o = {read}(buf, o)", indent)
        else:
            source.add(f"{target}, o = {read}(buf, o)", indent)
    else:
        _read_sized(source, field.kind, target, field.nullable, flexible, indent)


def _read_length(source: _Source, code: str, flexible: bool, indent: int) -> None:
    """Leaves the length in ``n``: negative for null."""
    if flexible:
        source.add("n = buf[o]; o += 1", indent)
        source.add("if n >= 128: n, o = read_uvarint(buf, o, n)", indent)
        source.add("n -= 1", indent)
    else:
        layout = struct.Struct(">" + code)
        unpack = source.bind("unpack", layout.unpack_from)
        source.add(f"n = {unpack}(buf, o)[0]; o += {layout.size}", indent)


def _read_sized(source: _Source, kind: str, target: str, nullable: bool, flexible: bool, indent: int) -> None:
    _read_length(source, "h" if kind == "string" else "i", flexible, indent)
    source.add("if n < 0:", indent)
    source.add(f"{target} = None" if nullable else "raise MalformedMessage('null')", indent + 1)
    source.add("else:", indent)
    source.add("if n > end - o: raise MalformedMessage('a field ends behind its message')", indent + 1)
    cut = {
        "string": "str(buf[o:o + n], 'utf-8')",
        "bytes": "bytes(buf[o:o + n])",
        "records": "memoryview(buf)[o:o + n]",
    }[kind]
    source.add(f"{target} = {cut}; o += n", indent + 1)


def _read_array(source: _Source, field: Field, target: str, flexible: bool, indent: int) -> None:
    _read_length(source, "i", flexible, indent)
    source.add("if n < 0:", indent)
    source.add(f"{target} = None" if field.nullable else "raise MalformedMessage('null')", indent + 1)
    source.add("else:", indent)
    indent += 1
    source.add("check_length(n, end - o)", indent)
    if field.kind in FIXED and field.kind != "uuid":
        code = FIXED[field.kind]
        source.names |= {"unpack_array": struct.unpack_from}
        source.add(f"{target} = unpack_array('>%d{code}' % n, buf, o)", indent)
        source.add(f"o += n * {struct.calcsize('>' + code)}", indent)
        return
    source.add("items = []", indent)
    source.add("for _ in range(n):", indent)
    if field.kind == "entity":
        assert field.entity is not None
        read = source.bind("read", reader(field.entity))
        source.add(f"item, o = {read}(buf, o)", indent + 1)
    elif field.kind == "uuid":
        unpack, uuid = (
            source.bind("unpack", struct.Struct("16s").unpack_from),
            source.bind("uuid", _read_uuid),
        )
        source.add(f"item = {uuid}({unpack}(buf, o)[0]); o += 16", indent + 1)
    else:
        # The loop above counts in ``range``, so that the element's own length may use ``n``.
        _read_sized(source, field.kind, "item", False, flexible, indent + 1)
    source.add("items.append(item)", indent + 1)
    source.add(f"{target} = tuple(items)", indent)


# ---------------------------------------------------------------- writers


def _compile_writer(entity: type[Any]) -> Writer:
    fields = describe(entity)
    source = _Source("def write(f, out):")
    source.names |= vars(primitives)
    for run in _runs([f for f in fields if f.tag is None]):
        _write_run(source, run, entity.__flexible__, 1)
    tagged = sorted((f for f in fields if f.tag is not None), key=lambda f: f.tag or 0)
    if tagged:
        _write_tagged(source, tagged)
    elif entity.__flexible__:
        source.add("out.append(b'\\0')")
    if len(source.lines) == 1:
        source.add("pass")
    return source.build("write")  # type: ignore[no-any-return]


def _value(source: _Source, field: Field) -> str:
    """The expression that takes a field's value out of the dict."""
    if field.default is dataclasses.MISSING:
        return f"f[{field.name!r}]"
    default = source.bind("default", field.default)
    return f"f.get({field.name!r}, {default})"


def _write_run(source: _Source, run: list[Field], flexible: bool, indent: int) -> None:
    if len(run) == 1 and (run[0].array or run[0].kind not in FIXED):
        _write_field(source, run[0], flexible, indent, _value(source, run[0]))
        return
    pack = source.bind("pack", struct.Struct(">" + "".join(FIXED[f.kind] for f in run)).pack)
    values = [_value(source, f) for f in run]
    values = [
        f"(u.bytes if (u := {v}) else UUID_ZERO_BYTES)" if f.kind == "uuid" else v
        for f, v in zip(run, values, strict=True)
    ]
    source.add(f"out.append({pack}({', '.join(values)}))", indent)


def _write_tagged(source: _Source, tagged: list[Field]) -> None:
    source.add("tags = []")
    for field in tagged:
        default = source.bind("absent", field.default)
        source.add(f"v = f.get({field.name!r}, {default})")
        # Kafka's writers leave out a tagged field that has its default.
        empty = " and v" if field.array and field.default == () else ""
        source.add(f"if v != {default}{empty}:")
        source.add("whole, out = out, []", 2)
        if field.kind in FIXED and not field.array:
            pack = source.bind("pack", struct.Struct(">" + FIXED[field.kind]).pack)
            source.add(f"out.append({pack}({'v.bytes' if field.kind == 'uuid' else 'v'}))", 2)
        else:
            _write_field(source, field, True, 2, "v")
        source.add(f"v = b''.join(out); out = whole; tags.append(({field.tag}, v))", 2)
    source.add("out.append(write_uvarint(len(tags)))")
    source.add("for t, v in tags: out.append(write_uvarint(t) + write_uvarint(len(v)) + v)")


def _write_field(source: _Source, field: Field, flexible: bool, indent: int, value: str) -> None:
    if not field.array and field.kind != "entity":
        _write_sized(source, field.kind, flexible, indent, value)
        return
    source.add(f"x = {value}", indent)
    null = r"b'\0'" if flexible else r"b'\xff\xff\xff\xff'"
    if field.array:
        if field.nullable:
            source.add(f"if x is None: out.append({null})", indent)
            source.add("else:", indent)
            indent += 1
        _write_array(source, field, flexible, indent)
        return
    assert field.entity is not None
    write = source.bind("write", writer(field.entity))
    if field.nullable:
        source.add(r"if x is None: out.append(b'\xff')", indent)
        source.add(rf"else: out.append(b'\x01'); {write}(x, out)", indent)
    else:
        source.add(f"{write}(x, out)", indent)


def _write_sized(source: _Source, kind: str, flexible: bool, indent: int, value: str) -> None:
    encode = ".encode()" if kind == "string" else ""
    pack = source.bind("pack", struct.Struct(">h" if kind == "string" else ">i").pack)
    null = r"b'\0'" if flexible else (r"b'\xff\xff'" if kind == "string" else r"b'\xff\xff\xff\xff'")
    length = "write_uvarint(len(b) + 1)" if flexible else f"{pack}(len(b))"
    source.add(f"b = {value}", indent)
    source.add(f"if b is None: out.append({null})", indent)
    source.add("else:", indent)
    if encode:
        source.add("b = b.encode()", indent + 1)
    source.add(f"out.append({length}); out.append(b)", indent + 1)


def _write_array(source: _Source, field: Field, flexible: bool, indent: int) -> None:
    pack = source.bind("pack", struct.Struct(">i").pack)
    source.add("write_count = " + ("write_uvarint(len(x) + 1)" if flexible else f"{pack}(len(x))"), indent)
    source.add("out.append(write_count)", indent)
    if field.kind == "entity":
        assert field.entity is not None
        write = source.bind("write", writer(field.entity))
        source.add(f"for item in x: {write}(item, out)", indent)
    elif field.kind == "uuid":
        source.add("for item in x: out.append(item.bytes)", indent)
    elif field.kind in FIXED:
        source.names |= {"pack_array": struct.pack}
        source.add(f"out.append(pack_array('>%d{FIXED[field.kind]}' % len(x), *x))", indent)
    else:
        source.add("for item in x:", indent)
        _write_sized(source, field.kind, flexible, indent + 1, "item")
