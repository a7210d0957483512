"""How a command fails: one line on stderr that says what to do, and an exit code that a script can use."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of every command."""

    OK = 0, "Done."
    FAILED = 1, "The broker, or the command, refused or failed; stderr says why."
    USAGE = 2, "The command line is wrong: an unknown option, a missing or malformed value."
    UNREACHABLE = 3, "No broker could be reached, or it did not answer in time."
    NOT_FOUND = 4, "The topic, partition, group, broker or file does not exist."
    EXISTS = 5, "What was to be created exists already."
    INTERRUPTED = 130, "Interrupted from the keyboard before it was done."

    doc: str

    def __new__(cls, value: int, doc: str) -> ExitCode:
        member = int.__new__(cls, value)
        member._value_ = value
        member.doc = doc
        return member


class CliError(Exception):
    """Ends the command with ``code``; ``str()`` is the line for the user."""

    def __init__(self, message: str, code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(" ".join(message.split()))
        self.code = code


class DeniedError(CliError):
    """The broker refused for want of a right."""
