"""Profiles: how to connect to a cluster, under a name, in files of this user's.

Each is a file of client properties, in Kafka's form, in ``$XDG_CONFIG_HOME/ottla/profiles`` (``~/.config``),
so that Kafka's own tools take it by --command-config. ``bootstrap.servers`` says where the brokers are, and
``ottla.default.NAME`` the default of an option of commands. The file ``ottla/profile`` names the profile in
use. Files are for their owner alone (mode 0600), and are replaced as a whole.
"""

from __future__ import annotations

import os
import re
import stat
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ottla.cli.errors import CliError, ExitCode
from ottla.cli.values import shown
from ottla.config.definition import ConfigError
from ottla.config.properties import decode_properties, parse_properties
from ottla.env.small_files import read_regular

VARIABLE = "OTTLA_PROFILE"
# What is used where nobody names one, and which need not be there.
DEFAULT = "default"
BOOTSTRAP = "bootstrap.servers"
OPTION = "ottla.default."
# Options that a profile may have a default for: how commands read and print, never what they do.
OPTIONS = ("acks", "compression", "format", "isolation", "key-separator")

FILE_BYTES_MAX = 1024 * 1024
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
_SECRET = re.compile(r"pass|secret|jaas|\.key\b|key\.pem|oauth.*assertion|private", re.IGNORECASE)
HIDDEN = "(hidden)"


class Profile(NamedTuple):
    """A profile as its file has it."""

    name: str
    path: Path
    properties: dict[str, str]

    @property
    def bootstrap(self) -> str | None:
        return self.properties.get(BOOTSTRAP)

    @property
    def defaults(self) -> dict[str, str]:
        """Defaults of options, by the option's name."""
        return {
            name.removeprefix(OPTION): value
            for name, value in self.properties.items()
            if name.startswith(OPTION)
        }

    @property
    def client(self) -> dict[str, str]:
        """The client properties, without what this command line alone knows."""
        return {name: value for name, value in self.properties.items() if not name.startswith(OPTION)}


class Chosen(NamedTuple):
    """A profile that is in use; ``named``: by --profile, not by the environment or 'ottla profile use'."""

    profile: Profile
    named: bool


def directory() -> Path:
    """Where profiles are. As its specification says, XDG_CONFIG_HOME counts if it is an absolute path."""
    home = os.environ.get("XDG_CONFIG_HOME", "")
    return Path(home if os.path.isabs(home) else os.path.expanduser("~/.config")) / "ottla"


def check_name(name: str) -> None:
    """CliError (usage) where no profile can have this name."""
    if not _NAME.fullmatch(name):
        raise CliError(
            f"profile {shown(name)}: a name has up to 64 letters, digits, '.', '_' and '-', and begins with "
            "a letter, a digit or '_'",
            ExitCode.USAGE,
        )


def names() -> list[str]:
    """The profiles that there are."""
    try:
        found = [path.name.removesuffix(".properties") for path in _folder().glob("*.properties")]
    except OSError as error:
        raise _trouble(_folder(), error) from None
    return sorted(name for name in found if _NAME.fullmatch(name))


def read(name: str) -> Profile:
    """One profile. CliError where there is none (not found), or its file cannot be read."""
    path, data = path_of(name), read_bytes(name)
    try:
        return Profile(name, path, parse_properties(decode_properties(data)))
    except ConfigError as error:
        raise CliError(f"profile {name!r}: {path}: {error}; 'ottla profile edit {name}' opens it") from None


def read_bytes(name: str) -> bytes:
    """The file of a profile. CliError as `read`."""
    check_name(name)
    path = path_of(name)
    try:
        return read_regular(str(path), FILE_BYTES_MAX).data
    except (FileNotFoundError, NotADirectoryError):
        known = ", ".join(names())
        others = (
            f"there are: {known}" if known else "there are no profiles: 'ottla profile create' creates one"
        )
        raise CliError(f"profile {name!r} does not exist; {others}", ExitCode.NOT_FOUND) from None
    except OSError as error:
        raise _trouble(path, error) from None
    except ValueError as error:
        raise CliError(f"profile {name!r}: {path}: {error}") from None


def is_open_to_others(profile: Profile) -> bool:
    """Whether others on this machine can read a file that has secrets in it."""
    if not any(map(is_secret, profile.properties)):
        return False
    return bool(profile.path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))


def current() -> tuple[str, str]:
    """The name of the profile that is in use where --profile names none, and what says so."""
    if name := os.environ.get(VARIABLE):
        return name, VARIABLE
    name = _in_use()
    return (DEFAULT, "nothing else") if name is None else (name, "ottla profile use")


def _in_use() -> str | None:
    """What 'ottla profile use' has said; None where it has said nothing. CliError where that is no name."""
    try:
        name = read_regular(str(_current()), FILE_BYTES_MAX).data.decode().strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _trouble(_current(), error) from None
    except ValueError:
        name = ""
    if not _NAME.fullmatch(name):
        raise CliError(f"{_current()}: it does not name a profile; 'ottla profile use NAME' writes it anew")
    return name


def chosen(named: str | None) -> Chosen | None:
    """The profile to go by: the one that --profile names, else the current one. None where there is none."""
    if named is not None:
        return Chosen(read(named), True)
    name, why = current()
    try:
        return Chosen(read(name), False)
    except CliError as error:
        if error.code is not ExitCode.NOT_FOUND:
            raise
        if name == DEFAULT:
            return None
        raise CliError(f"{error} (named by {why})", ExitCode.NOT_FOUND) from None


def write(name: str, properties: Mapping[str, str]) -> Path:
    """Make a profile, or replace it as a whole."""
    check_name(name)
    write_bytes(path_of(name), text_of(properties).encode())
    return path_of(name)


def text_of(properties: Mapping[str, str]) -> str:
    """The file of these properties."""
    return "".join(f"{_escaped(name, ' =:#!')}={_escaped(value, '')}\n" for name, value in properties.items())


def write_bytes(path: Path, data: bytes) -> None:
    """Put a file in place whole, or leave what was there. It is for its owner alone."""
    try:
        directory().parent.mkdir(parents=True, exist_ok=True)
        for folder in (directory(), path.parent):
            folder.mkdir(mode=0o700, exist_ok=True)
        # mkstemp makes files of mode 0600.
        descriptor, made = tempfile.mkstemp(prefix=".new-", dir=path.parent)
        try:
            with open(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(made, path)
        except BaseException:
            os.unlink(made)
            raise
    except OSError as error:
        raise _trouble(path, error) from None


def use(name: str) -> None:
    """Have commands go by a profile from now on. The name ``default`` may be of none."""
    if name != DEFAULT:
        read(name)
    write_bytes(_current(), f"{name}\n".encode())


def delete(name: str) -> None:
    """Delete a profile; if it is the current one, the default one is current from then on."""
    check_name(name)
    if not path_of(name).exists():
        read(name)  # which says what there is
    try:
        path_of(name).unlink()
        # If that file cannot be read, it does not name this profile.
        with suppress(CliError):
            if _in_use() == name:
                _current().unlink()
    except OSError as error:
        raise _trouble(path_of(name), error) from None


def is_secret(name: str) -> bool:
    """Whether the value of a property is not to be shown."""
    return bool(_SECRET.search(name))


def shown_properties(profile: Profile) -> dict[str, str]:
    """The properties for people, with secrets hidden."""
    return {name: HIDDEN if is_secret(name) else value for name, value in profile.properties.items()}


def path_of(name: str) -> Path:
    """The file of a profile."""
    return _folder() / f"{name}.properties"


def _folder() -> Path:
    return directory() / "profiles"


def _current() -> Path:
    return directory() / "profile"


def _trouble(path: Path, error: OSError) -> CliError:
    return CliError(f"{path}: {(error.strerror or str(error)).lower()}")


def _escaped(text: str, special: str) -> str:
    """As Java's properties have it; what is not ASCII as an escape, since Java reads Latin-1."""
    made = []
    for position, character in enumerate(text):
        if character in special or character == "\\" or (character == " " and position == 0):
            made.append(f"\\{character}")
        elif character in "\n\r\t\f":
            made.append({"\n": "\\n", "\r": "\\r", "\t": "\\t", "\f": "\\f"}[character])
        elif 0x7F <= ord(character) <= 0xFFFF:
            made.append(f"\\u{ord(character):04x}")
        else:
            made.append(character)
    return "".join(made)
