"""The users of PLAIN that ``ottla.users`` and ``ottla.users.file`` give a listener, as they are now."""

from __future__ import annotations

import logging
from typing import NamedTuple

from ottla.config import ConfigError
from ottla.config.listener_settings import ListenerSettings
from ottla.env.key_files import Mark, marks
from ottla.env.small_files import read_regular
from ottla.security.plain_users import FILE_BYTES_MAX, users_of_file, users_of_list
from ottla.security.secret import Secret

log = logging.getLogger(__name__)

LIST, FILE = "ottla.users", "ottla.users.file"
# Permissions of those who are neither the file's owner nor of its group.
_OTHERS = 0o007


# What the two settings are.
Given = tuple[Secret | None, str | None]


class Loaded(NamedTuple):
    """What was read, and by which settings and of which file."""

    users: dict[str, Secret]
    given: Given
    mark: Mark


class ListenerUsers:
    """``get`` finds a password by its user's name."""

    def __init__(self, settings: ListenerSettings) -> None:
        """ConfigError where they cannot be used; nothing of a password is in it."""
        self._settings = settings
        # The last that was found to be no good: it is said once.
        self._refused: tuple[Given, Mark] | None = None
        self._loaded = self._load()

    def get(self, name: str, /) -> Secret | None:
        return self._loaded.users.get(name)

    def changed(self) -> Loaded | None:
        """What they have become; None where they are as they were, or as they were refused before.
        ConfigError where that will not do. It reads a file, so it may be called in a thread."""
        given = _given(self._settings)
        now = given, _mark(given[1])
        if now in (self._loaded[1:], self._refused):
            return None
        try:
            return self._load()
        except ConfigError:
            self._refused = now
            raise

    def would_change(self, settings: ListenerSettings) -> bool:
        """Whether these settings name others than those that are in force."""
        return _given(settings) != self._loaded.given

    def take(self, loaded: Loaded) -> None:
        """Put them in force for logins to come."""
        self._loaded, self._refused = loaded, None

    def _load(self) -> Loaded:
        given = listed, path = _given(self._settings)
        mark = _mark(path)
        users = {} if path is None else self._read(path)
        if listed is not None:
            try:
                users |= users_of_list(listed.reveal())
            except ValueError as error:
                raise ConfigError(f"listener {self._settings.listener}: {LIST}: {error}") from None
        return Loaded(users, given, mark)

    def _read(self, path: str) -> dict[str, Secret]:
        try:
            data, mode = read_regular(path, FILE_BYTES_MAX)
            users = users_of_file(data)
        except (OSError, ValueError) as error:
            reason = error.strerror.lower() if isinstance(error, OSError) and error.strerror else str(error)
            raise ConfigError(f"listener {self._settings.listener}: {FILE} {path}: {reason}") from None
        if mode & _OTHERS:
            log.warning(
                "%s %s has passwords, and other users of this machine can read or change it: "
                "run chmod 600 %s",
                FILE,
                path,
                path,
            )
        return users


def _given(settings: ListenerSettings) -> Given:
    listed = settings.get(LIST)
    return None if listed is None else Secret(listed), settings.get(FILE)


def _mark(path: str | None) -> Mark:
    return None if path is None else marks((path,))[0]
