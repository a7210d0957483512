"""Users of PLAIN as ``ottla.users`` and ``ottla.users.file`` name them, ``alice:secret``; ours, beside JAAS.

What is wrong is told by its place: nothing is shown of what may be a password.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ottla.security.secret import Secret

# As many as there may be users with credentials in a cluster are more than anybody keeps in a file by hand.
USERS_MAX: Final = 10_000
FILE_BYTES_MAX: Final = 1024 * 1024


def users_of_list(text: str) -> dict[str, Secret]:
    """``alice:secret,bob:another``. ValueError says which part is none."""
    return _users((f"part {number}", part) for number, part in enumerate(text.split(","), 1))


def users_of_file(data: bytes) -> dict[str, Secret]:
    """A line for each; blank ones, and those that begin with ``#``, are none. ValueError says which line is
    wrong."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        # Its error has the data in it.
        raise ValueError("it is not UTF-8") from None
    lines = enumerate((line.strip() for line in text.split("\n")), 1)
    return _users((f"line {number}", line) for number, line in lines if line and not line.startswith("#"))


def _users(parts: Iterable[tuple[str, str]]) -> dict[str, Secret]:
    found: dict[str, Secret] = {}
    for place, part in parts:
        name, colon, password = part.partition(":")
        name, password = name.strip(), password.strip()
        if not colon or not name or not password:
            raise ValueError(f"{place} is not NAME:PASSWORD")
        if name in found:
            raise ValueError(f"{place} names a user again")
        found[name] = Secret(password)
        if len(found) > USERS_MAX:
            raise ValueError(f"there are more than {USERS_MAX} users")
    return found
