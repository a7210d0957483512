"""OpenTelemetry's ``MetricsData``, read from its bytes: gauges, sums, and histograms' sums and counts.

A stranger may send half a million empty messages in a megabyte, which a library makes objects of in one step.
Here work is bounded, and whoever reads may pause wherever something comes, also where that is nothing to
keep: a field that is none of ours costs as much as one that is.
"""

from __future__ import annotations

import struct
from collections.abc import Generator, Iterator
from typing import Final, NamedTuple, final

# Fields that are looked at in one message, and in one value with all that is in it, between two of which
# nobody can pause; real clients send some ten thousands, and some dozens.
FIELDS_MAX: Final = 200_000
FIELDS_OF_ONE_MAX: Final = 1_000
# Bytes of a metric's name. What has a longer one is passed over: it stands in each of its values.
NAME_BYTES_MAX: Final = 1_024

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_DOUBLE, _SIGNED, _UNSIGNED = struct.Struct("<d"), struct.Struct("<q"), struct.Struct("<Q")
_CUMULATIVE: Final = 2  # AGGREGATION_TEMPORALITY_CUMULATIVE


def _bytes(number: int) -> int:
    return number << 3 | _BYTES


def _fixed64(number: int) -> int:
    return number << 3 | _FIXED64


def _varint(number: int) -> int:
    return number << 3 | _VARINT


# Fields, by number and type: of MetricsData and ResourceMetrics, of ScopeMetrics, and of Metric.
_RESOURCE, _SCOPE, _METRIC = _bytes(1), _bytes(2), _bytes(2)
_NAME, _GAUGE, _SUM, _HISTOGRAM = _bytes(1), _bytes(5), _bytes(7), _bytes(9)
# Of Gauge, Sum and Histogram; of NumberDataPoint, and of HistogramDataPoint.
_POINT, _TEMPORALITY = _bytes(1), _varint(2)
_AS_DOUBLE, _AS_INT, _ATTRIBUTE = _fixed64(4), _fixed64(6), _bytes(7)
_COUNT, _TOTAL, _HISTOGRAM_ATTRIBUTE = _fixed64(4), _fixed64(5), _bytes(9)
# Of KeyValue and AnyValue.
_KEY, _VALUE = _bytes(1), _bytes(2)
_STRING, _BOOLEAN, _INTEGER, _NUMBER = _bytes(1), _varint(2), _varint(3), _fixed64(4)


class Malformed(ValueError):
    """It is no ``MetricsData``, or too much of it."""


class Value(NamedTuple):
    """One value of a metric. ``adds``: it comes on top of what was there."""

    name: str
    attributes: tuple[tuple[str, str], ...]
    value: float
    adds: bool


class _Field(NamedTuple):
    tag: int
    # A varint itself; where eight bytes are; where bytes begin, and end.
    value: int
    end: int


@final
class Reader:
    """Reads one message."""

    __slots__ = ("_data", "_left", "_left_of_one")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._left = FIELDS_MAX
        self._left_of_one = FIELDS_OF_ONE_MAX

    @property
    def fields(self) -> int:
        """How many fields have been read so far: what it costs."""
        return FIELDS_MAX - self._left

    def resources(self) -> Iterator[tuple[int, int] | None]:
        """Where each ``ResourceMetrics`` begins and ends, all that is in it; None where something else was
        read. Malformed."""
        return self._messages(_RESOURCE, 0, len(self._data))

    def values(self) -> Iterator[Value | None]:
        """Each value; None where something else was read, no more than `FIELDS_OF_ONE_MAX` fields in any
        case. Malformed, also after some."""
        for resource in self.resources():
            yield None
            for scope in self._messages(_SCOPE, *resource) if resource else ():
                yield None
                for metric in self._messages(_METRIC, *scope) if scope else ():
                    yield None
                    if metric:
                        yield from self._of_metric(*metric)

    def _of_metric(self, start: int, end: int) -> Iterator[Value | None]:
        name, kind, data = "", 0, (0, 0)
        self._left_of_one = FIELDS_OF_ONE_MAX
        for tag, value, stop in self._of_one(start, end):
            if tag == _NAME:
                name = self._text(value, stop) if stop - value <= NAME_BYTES_MAX else ""
            elif tag in (_GAUGE, _SUM, _HISTOGRAM):
                kind, data = tag, (value, stop)
        # What has no name cannot be shown; of other kinds of metrics nothing is kept.
        if not name or not kind:
            return
        adds = kind != _GAUGE and (yield from self._adds(*data))
        of_point = self._of_histogram if kind == _HISTOGRAM else self._of_number
        for point in self._messages(_POINT, *data):
            if point is None:
                yield None
            else:
                self._left_of_one = FIELDS_OF_ONE_MAX
                yield from of_point(name, adds, *point)

    def _adds(self, start: int, end: int) -> Generator[None, None, bool]:
        """Whether a sum or histogram says how much it has grown."""
        temporality = 0
        for tag, value, _ in self._fields(start, end):
            if tag == _TEMPORALITY:
                temporality = value
            yield None
        return temporality != _CUMULATIVE

    def _of_number(self, name: str, adds: bool, start: int, end: int) -> Iterator[Value | None]:
        attributes = []
        number: float | None = None
        for tag, value, stop in self._of_one(start, end):
            if tag == _AS_DOUBLE:
                number = self._double(value)
            elif tag == _AS_INT:
                number = float(_SIGNED.unpack_from(self._data, value)[0])
            elif tag == _ATTRIBUTE:
                attributes.append(self._attribute(value, stop))
        yield None if number is None else Value(name, tuple(attributes), number, adds)

    def _of_histogram(self, name: str, adds: bool, start: int, end: int) -> Iterator[Value]:
        attributes = []
        count, total = 0, 0.0
        for tag, value, stop in self._of_one(start, end):
            if tag == _COUNT:
                count = _UNSIGNED.unpack_from(self._data, value)[0]
            elif tag == _TOTAL:
                total = self._double(value)
            elif tag == _HISTOGRAM_ATTRIBUTE:
                attributes.append(self._attribute(value, stop))
        yield Value(f"{name}_count", tuple(attributes), float(count), adds)
        yield Value(f"{name}_sum", tuple(attributes), total, adds)

    def _attribute(self, start: int, end: int) -> tuple[str, str]:
        """An attribute, and its value as a text: empty where it is neither text, number nor boolean."""
        key, text = "", ""
        for tag, value, stop in self._of_one(start, end):
            if tag == _KEY:
                key = self._text(value, stop)
            elif tag == _VALUE:
                text = self._any(value, stop)
        return key, text

    def _any(self, start: int, end: int) -> str:
        text = ""
        for tag, value, stop in self._of_one(start, end):
            if tag == _STRING:
                text = self._text(value, stop)
            elif tag == _BOOLEAN:
                text = "true" if value else "false"
            elif tag == _INTEGER:
                text = str(value - (1 << 64) if value >> 63 else value)
            elif tag == _NUMBER:
                text = str(self._double(value))
        return text

    def _text(self, start: int, end: int) -> str:
        try:
            return self._data[start:end].decode()
        except UnicodeDecodeError as error:
            raise Malformed("a text that is none") from error

    def _double(self, start: int) -> float:
        found: float = _DOUBLE.unpack_from(self._data, start)[0]
        return found

    def _messages(self, tag: int, start: int, end: int) -> Iterator[tuple[int, int] | None]:
        for field in self._fields(start, end):
            yield (field.value, field.end) if field.tag == tag else None

    def _of_one(self, start: int, end: int) -> Iterator[_Field]:
        """The fields of a message that is, or is a part of, one value."""
        for field in self._fields(start, end):
            self._left_of_one -= 1
            if self._left_of_one < 0:
                raise Malformed("too many fields of one value")
            yield field

    def _fields(self, start: int, end: int) -> Iterator[_Field]:
        """The fields of a message that lies between two places."""
        while start < end:
            self._left -= 1
            if self._left < 0:
                raise Malformed("too many fields")
            tag, start = self._number(start, end)
            kind, value = tag & 7, start
            if kind == _VARINT:
                value, start = self._number(start, end)
            elif kind == _FIXED64:
                start += 8
            elif kind == _FIXED32:
                start += 4
            elif kind == _BYTES:
                size, value = self._number(start, end)
                start = value + size
            else:
                raise Malformed(f"a field of type {kind}")
            if start > end:
                raise Malformed("it ends too early")
            yield _Field(tag, value, start)

    def _number(self, start: int, end: int) -> tuple[int, int]:
        """A varint, and where it ends."""
        data, number, shift = self._data, 0, 0
        while start < end and shift < 70:
            byte = data[start]
            start += 1
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                return number & 0xFFFF_FFFF_FFFF_FFFF, start
            shift += 7
        raise Malformed("a number that does not end")
