"""HOST:PORT, as it comes from outside: in configurations, in options of commands, in the URL of a store."""

from __future__ import annotations

PORT_MAX = 65_535
_DIGITS_MAX = len(str(PORT_MAX))


def parse_address(text: str, *, port_min: int = 0, port_default: int | None = None) -> tuple[str, int] | None:
    """The host, an IPv6 address without its brackets, and the port; None where it is something else.

    ``port_default``: the port where ``text`` has none.
    """
    host, colon, port = text.rpartition(":")
    if port_default is not None and (not colon or port.endswith("]")):
        host, port = text, str(port_default)
    if not (port.isascii() and port.isdigit() and len(port) <= _DIGITS_MAX):
        return None
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        return None
    number = int(port)
    if not host or any(map(_is_of_no_host, host)) or not port_min <= number <= PORT_MAX:
        return None
    return host, number


def _is_of_no_host(character: str) -> bool:
    return character in "[]" or character.isspace() or not character.isprintable()
