"""The subject of a certificate as Java writes it: X500Principal.getName(), which is RFC 2253.

The last part comes first; CN, C, L, ST, O, OU, STREET, DC and UID have names, all others their number and
their bytes in hex. A principal's name is made of it, so that ACLs for Kafka hold here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

_SEQUENCE: Final = 0x30
_SET: Final = 0x31
_INTEGER: Final = 0x02
_OID: Final = 0x06
_VERSION: Final = 0xA0

# What Java takes for text: UTF8String, PrintableString, T61String, IA5String, GeneralString, BMPString.
_TEXTS: Final = frozenset({12, 19, 20, 22, 27, 30})
_KEYWORDS: Final = {
    "2.5.4.3": "CN",
    "2.5.4.6": "C",
    "2.5.4.7": "L",
    "2.5.4.8": "ST",
    "2.5.4.9": "STREET",
    "2.5.4.10": "O",
    "2.5.4.11": "OU",
    "0.9.2342.19200300.100.1.1": "UID",
    "0.9.2342.19200300.100.1.25": "DC",
}
_ESCAPED: Final = frozenset(',+<>;"\\=#')
# Names are short, and a certificate is of whoever the authority signs it for.
NAME_BYTES_MAX: Final = 16 * 1024


class DerError(ValueError):
    """Bytes that are no certificate, or no name."""


class _Value(NamedTuple):
    tag: int
    content: bytes
    # With its tag and length.
    whole: bytes


def subject_of(certificate: bytes) -> str:
    """Of a certificate in DER, such as ``SSLSocket.getpeercert(binary_form=True)`` gives. DerError."""
    signed = next(_values(_expect(_only(certificate), _SEQUENCE)), None)
    parts = _values(_expect(signed, _SEQUENCE))
    first = next(parts, None)
    if first is not None and first.tag == _VERSION:
        first = next(parts, None)
    # The serial number, then the signature's algorithm, the issuer and the validity.
    _expect(first, _INTEGER)
    for _ in range(3):
        _expect(next(parts, None), _SEQUENCE)
    subject = next(parts, None)
    _expect(subject, _SEQUENCE)
    assert subject is not None
    return name_of(subject.whole)


def name_of(name: bytes) -> str:
    """Of a name in DER. DerError."""
    if len(name) > NAME_BYTES_MAX:
        raise DerError(f"a name of {len(name)} bytes")
    parts = [
        "+".join(_attribute(attribute) for attribute in _values(_expect(part, _SET)))
        for part in _values(_expect(_only(name), _SEQUENCE))
    ]
    return ",".join(reversed(parts))


def _attribute(attribute: _Value) -> str:
    kind, value, *rest = [*_values(_expect(attribute, _SEQUENCE)), None, None]
    if value is None or rest[0] is not None:
        raise DerError("an attribute that is no pair")
    oid = _oid(_expect(kind, _OID))
    keyword = _KEYWORDS.get(oid)
    if keyword is None or value.tag not in _TEXTS:
        return f"{keyword or oid}=#{value.whole.hex()}"
    return f"{keyword}={_escape(value.content.decode('utf-8', 'replace'))}"


def _escape(text: str) -> str:
    """Also where it is not UTF-8, Java reads it as such."""
    found = []
    last = len(text.rstrip(" \r")) - 1
    lead = len(text) - len(text.lstrip(" \r"))
    for at, c in enumerate(text):
        if c == "\0":
            found.append("\\00")
        elif c in _ESCAPED or at < lead or at > last:
            found.append("\\" + c)
        else:
            found.append(c)
    return "".join(found)


def _oid(content: bytes) -> str:
    if not content or content[-1] & 0x80:
        raise DerError("an object identifier that does not end")
    numbers: list[int] = []
    number = 0
    for byte in content:
        number = number << 7 | byte & 0x7F
        if number >> 128:
            raise DerError("an object identifier with a huge number")
        if not byte & 0x80:
            numbers.append(number)
            number = 0
    first = min(numbers[0] // 40, 2)
    return ".".join(map(str, (first, numbers[0] - 40 * first, *numbers[1:])))


def _expect(value: _Value | None, tag: int) -> bytes:
    if value is None or value.tag != tag:
        raise DerError(f"no value of type {tag} where one is due")
    return value.content


def _only(der: bytes) -> _Value:
    values = list(_values(der))
    if len(values) != 1:
        raise DerError("not one value")
    return values[0]


def _values(der: bytes) -> Iterator[_Value]:
    at = 0
    while at < len(der):
        begin = at
        tag, length, at = der[at], der[at + 1] if at + 1 < len(der) else 0, at + 2
        if length & 0x80:
            size = length & 0x7F
            length, at = int.from_bytes(der[at : at + size]), at + size
            if not 1 <= size <= 4:
                raise DerError("a length that is none")
        if tag & 0x1F == 0x1F or at + length > len(der):
            raise DerError("a value that is longer than what it is in")
        at += length
        yield _Value(tag, der[at - length : at], der[begin:at])
