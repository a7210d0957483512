"""Compiles a reader and a writer for each kio message class.

kio gives us Kafka's message definitions as dataclasses. Its own reader is native, but ends the process when
an array's length lies; its writer is interpreted and takes 6 µs for the smallest Produce response. So both
are generated here from the definitions, as straight-line Python with neighbouring fixed-size fields packed
by one ``struct`` call: see docs/decisions/0002-codec.md for the figures.

Names are Kafka's in snake case (``wire/fields.py``). A reader makes named tuples; a writer takes nested
dicts, ignores fields that its version lacks, and fills in Kafka's defaults. What is the same in many
responses may be written once: an array of a response may be `Encoded`.

A reader counts what it makes: elements of arrays, nested ones together, and tagged fields, over the whole
message, before it makes them. Strings that are read have at most 32,767 bytes in every version, and so have
those of responses that are written.
"""

from __future__ import annotations

import dataclasses
import struct
from collections import namedtuple
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID, SafeUUID

from ottla.types import Buffer
from ottla.wire import primitives
from ottla.wire.fields import FIXED, ZERO, Field, describe

# (buffer, offset, [how many elements of arrays and tagged fields may still come]) -> (message, offset behind
# it). The list's one number is counted down.
Reader = Callable[[Buffer, int, list[int]], tuple[Any, int]]
# (fields, pieces): appends the encoded pieces in order
Writer = Callable[[dict[str, Any], list[Any]], None]

# As a Writer, for what is large: a generator that yields after every so many elements, so that others have
# their turn, and what was written by then can be taken away. The last argument is a list with how many are
# left of the piece, which nested ones share.
PiecesWriter = Callable[[dict[str, Any], list[Any], list[int]], Iterator[None]]

# Arrays of fewer numbers are packed with their count.
FEW_NUMBERS = 16
# Elements of one piece: with making their fields, some milliseconds' worth.
PIECE = 256


class Encoded:
    """An array of a response whose elements are written already: how many there are, and their bytes."""

    __slots__ = ("count", "pieces")

    def __init__(self, count: int, pieces: list[bytes]) -> None:
        self.count = count
        self.pieces = pieces

    def __len__(self) -> int:
        return self.count

    @property
    def size_bytes(self) -> int:
        return sum(map(len, self.pieces))


class Source:
    """Lines of a function under construction, and the objects that they refer to."""

    def __init__(self, head: str, entity: type[Any], *, in_pieces: bool = False) -> None:
        self.lines = [head]
        self.in_pieces = in_pieces
        # Whether it is for a response: its strings must be such that every client can read them.
        self.answers = entity.__module__.endswith(".response")
        # Whether its arrays may come as they are written: those of a response itself, not of what is in it.
        self.takes_encoded = self.answers and hasattr(entity, "__api_key__")
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
_pieces_writers: dict[type[Any], PiecesWriter] = {}


def reader(entity: type[Any]) -> Reader:
    """The compiled reader of a kio class. It raises one of ``primitives.READ_ERRORS`` on bad bytes."""
    if entity not in _readers:
        _readers[entity] = read_source(entity).build("read")
    return _readers[entity]


def writer(entity: type[Any]) -> Writer:
    """The compiled writer of a kio class. KeyError names a field that must be given."""
    if entity not in _writers:
        _writers[entity] = write_source(entity).build("write")
    return _writers[entity]


def pieces_writer(entity: type[Any]) -> PiecesWriter:
    """A compiled writer of a kio class that does its work in pieces."""
    if entity not in _pieces_writers:
        _pieces_writers[entity] = write_source(entity, in_pieces=True).build("write")
    return _pieces_writers[entity]


def _has_arrays(entity: type[Any]) -> bool:
    """Whether there are elements in it that are messages of their own."""
    return any(field.entity is not None for field in describe(entity))


def has_records(entity: type[Any]) -> bool:
    """Whether there are record batches in a kio class, or in what is nested in it."""
    return any(
        field.kind == "records" or (field.entity is not None and has_records(field.entity))
        for field in describe(entity)
    )


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


def read_source(entity: type[Any]) -> Source:
    """What a reader is compiled from; it is built as ``read``."""
    fields = describe(entity)
    flexible = entity.__flexible__
    plain = [f for f in fields if f.tag is None]
    tagged = [f for f in fields if f.tag is not None]
    source = Source("def read(buf, o, left):", entity)
    source.names |= vars(primitives)
    source.add("end = len(buf)")
    for run in _runs(plain):
        _read_run(source, run, flexible, 1)
    if tagged:
        _read_tagged(source, tagged)
    elif flexible:
        source.add("if buf[o]: o = skip_tags(buf, o, left)")
        source.add("else: o += 1")
    message = namedtuple(entity.__name__, [f.name for f in fields])  # type: ignore[misc]
    source.names |= {"_new": tuple.__new__, "_message": message}
    values = ", ".join(f"v_{f.name}" for f in fields) + ("," if len(fields) == 1 else "")
    source.add(f"return _new(_message, ({values})), o")
    return source


def _read_tagged(source: Source, tagged: list[Field]) -> None:
    for field in tagged:
        value = source.bind("default", _reader_default(field))
        source.add(f"v_{field.name} = {value}")
    source.add("n = buf[o]; o += 1")
    source.add("if n >= 128: n, o = read_uvarint(buf, o, n)")
    source.add("if n: take(n, end - o, left)")
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
    return ZERO[field.kind] if field.default is dataclasses.MISSING else field.default


def _read_run(source: Source, run: list[Field], flexible: bool, indent: int) -> None:
    if len(run) == 1 and (run[0].array or run[0].kind not in FIXED):
        _read_field(source, run[0], flexible, indent)
        return
    layout = struct.Struct(">" + "".join(FIXED[f.kind] for f in run))
    unpack = source.bind("unpack", layout.unpack_from)
    targets = "".join(f"v_{f.name}, " for f in run)
    source.add(f"{targets}= {unpack}(buf, o); o += {layout.size}", indent)
    for field in run:
        if field.kind == "uuid":
            uuid = source.bind("uuid", read_uuid)
            source.add(f"v_{field.name} = {uuid}(v_{field.name})", indent)


def read_uuid(data: bytes) -> UUID:
    # Most are none: topics are named, or they have an id.
    if data == primitives.UUID_ZERO_BYTES:
        return primitives.UUID_ZERO
    # Without its checks, which cannot fail here, and past its refusal to be changed by the shortest way: they
    # are most of what it takes to be made, and a request may have thousands.
    made: UUID = _new_object(UUID)
    _set_int(made, _from_bytes(data))
    _set_is_safe(made, _UNKNOWN)
    return made


_new_object, _from_bytes, _UNKNOWN = object.__new__, int.from_bytes, SafeUUID.unknown
_set_int, _set_is_safe = (vars(UUID)[name].__set__ for name in ("int", "is_safe"))


def _read_field(source: Source, field: Field, flexible: bool, indent: int) -> None:
    target = f"v_{field.name}"
    if field.array:
        _read_array(source, field, target, flexible, indent)
    elif field.kind == "entity":
        assert field.entity is not None
        read = source.bind("read", reader(field.entity))
        if field.nullable:
            source.add("o += 1", indent)
            source.add(f"if buf[o - 1] > 127: {target} = None", indent)
            source.add(f"else: {target}, o = {read}(buf, o, left)", indent)
        else:
            source.add(f"{target}, o = {read}(buf, o, left)", indent)
    else:
        _read_sized(source, field.kind, target, field.nullable, flexible, indent)


def _read_length(source: Source, code: str, flexible: bool, indent: int) -> None:
    """Leaves the length in ``n``: negative for null."""
    if flexible:
        # A string's length has 16 bits, and one only, in the other versions.
        read = "read_string_size" if code == "h" else "read_uvarint"
        source.add("n = buf[o]; o += 1", indent)
        source.add(f"if n >= 128: n, o = {read}(buf, o, n)", indent)
        source.add("n -= 1", indent)
    else:
        layout = struct.Struct(">" + code)
        unpack = source.bind("unpack", layout.unpack_from)
        source.add(f"n = {unpack}(buf, o)[0]; o += {layout.size}", indent)


def _read_sized(source: Source, kind: str, target: str, nullable: bool, flexible: bool, indent: int) -> None:
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


def _read_array(source: Source, field: Field, target: str, flexible: bool, indent: int) -> None:
    _read_length(source, "i", flexible, indent)
    source.add("if n < 0:", indent)
    source.add(f"{target} = None" if field.nullable else "raise MalformedMessage('null')", indent + 1)
    source.add("else:", indent)
    indent += 1
    # Counted here, and called only where something is wrong: calls are what a small message costs.
    source.add("if n > left[0] or n > end - o: take(n, end - o, left)", indent)
    source.add("left[0] -= n", indent)
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
        source.add(f"item, o = {read}(buf, o, left)", indent + 1)
    elif field.kind == "uuid":
        unpack, uuid = (
            source.bind("unpack", struct.Struct("16s").unpack_from),
            source.bind("uuid", read_uuid),
        )
        source.add(f"item = {uuid}({unpack}(buf, o)[0]); o += 16", indent + 1)
    else:
        # The loop above counts in ``range``, so that the element's own length may use ``n``.
        _read_sized(source, field.kind, "item", False, flexible, indent + 1)
    source.add("items.append(item)", indent + 1)
    source.add(f"{target} = tuple(items)", indent)


# ---------------------------------------------------------------- writers


def write_source(entity: type[Any], *, in_pieces: bool = False) -> Source:
    """What a writer is compiled from; it is built as ``write``."""
    fields = describe(entity)
    head = "def write(f, out, left):" if in_pieces else "def write(f, out):"
    source = Source(head, entity, in_pieces=in_pieces)
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
    if in_pieces:
        source.add("return; yield")
    return source


def _call_writer(source: Source, entity: type[Any], value: str) -> str:
    """The statement that writes a nested message."""
    if source.in_pieces and _has_arrays(entity):
        return f"yield from {source.bind('write', pieces_writer(entity))}({value}, out, left)"
    return f"{source.bind('write', writer(entity))}({value}, out)"


def _value(source: Source, field: Field) -> str:
    """The expression that takes a field's value out of the dict."""
    if field.default is dataclasses.MISSING:
        return f"f[{field.name!r}]"
    default = source.bind("default", field.default)
    return f"f.get({field.name!r}, {default})"


def _write_run(source: Source, run: list[Field], flexible: bool, indent: int) -> None:
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


def _write_tagged(source: Source, tagged: list[Field]) -> None:
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


def _write_field(source: Source, field: Field, flexible: bool, indent: int, value: str) -> None:
    if not field.array and field.kind != "entity":
        _write_sized(source, field.kind, flexible, indent, value, field.name)
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
    write = _call_writer(source, field.entity, "x")
    if field.nullable:
        source.add(r"if x is None: out.append(b'\xff')", indent)
        source.add(rf"else: out.append(b'\x01'); {write}", indent)
    else:
        source.add(write, indent)


def _write_sized(source: Source, kind: str, flexible: bool, indent: int, value: str, name: str) -> None:
    pack = source.bind("pack", struct.Struct(">h" if kind == "string" else ">i").pack)
    null = r"b'\0'" if flexible else (r"b'\xff\xff'" if kind == "string" else r"b'\xff\xff\xff\xff'")
    length = _length_of("b", flexible, pack)
    source.add(f"b = {value}", indent)
    source.add(f"if b is None: out.append({null})", indent)
    source.add("else:", indent)
    if kind == "string":
        source.add("b = b.encode()", indent + 1)
    if kind == "string" and source.answers:
        source.add(f"if len(b) > {primitives.STRING_BYTES_MAX}: b = shorten({name!r}, b)", indent + 1)
    source.add(f"out.append({length}); out.append(b)", indent + 1)


def _write_array(source: Source, field: Field, flexible: bool, indent: int) -> None:
    if field.kind in FIXED and field.kind != "uuid":
        _write_numbers(source, FIXED[field.kind], flexible, indent)
        return
    pack = source.bind("pack", struct.Struct(">i").pack)
    source.add(f"out.append({_length_of('x', flexible, pack)})", indent)
    if field.kind == "entity":
        assert field.entity is not None
        if source.takes_encoded:
            source.names |= {"Encoded": Encoded}
            source.add("if type(x) is Encoded:", indent)
            source.add("out += x.pieces" + ("; yield" if source.in_pieces else ""), indent + 1)
            source.add("else:", indent)
            indent += 1
        source.add("for item in x:", indent)
        if source.in_pieces:
            source.add("left[0] -= 1", indent + 1)
            source.add(f"if not left[0]: left[0] = {PIECE}; yield", indent + 1)
        source.add(_call_writer(source, field.entity, "item"), indent + 1)
    elif field.kind == "uuid":
        source.add("for item in x: out.append(item.bytes)", indent)
    else:
        source.add("for item in x:", indent)
        _write_sized(source, field.kind, flexible, indent + 1, "item", field.name)


def _length_of(name: str, flexible: bool, pack: str) -> str:
    """The expression that writes a length."""
    if not flexible:
        return f"{pack}(len({name}))"
    return f"UVARINTS[n] if (n := len({name}) + 1) < 128 else write_uvarint(n)"


def _write_numbers(source: Source, code: str, flexible: bool, indent: int) -> None:
    """An array of numbers. Few of them, as a partition's replicas, take one call with their count."""
    count = "B" if flexible else "i"
    packers = [struct.Struct(f">{count}{n}{code}").pack for n in range(FEW_NUMBERS)]
    few = source.bind("few", packers)
    pack = source.bind("pack", struct.Struct(">i").pack)
    source.names |= {"pack_array": struct.pack}
    source.add("n = len(x)", indent)
    source.add(f"if n < {FEW_NUMBERS}: out.append({few}[n](n{' + 1' if flexible else ''}, *x))", indent)
    source.add("else:", indent)
    source.add(f"out.append({_length_of('x', flexible, pack)})", indent + 1)
    source.add(f"out.append(pack_array('>%d{code}' % len(x), *x))", indent + 1)
