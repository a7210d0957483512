"""`ottla log dump`: what is in the files of a data directory, with no broker running."""

from __future__ import annotations

import json as json_module
import mmap
import os
from enum import StrEnum
from typing import Annotated, Any

import typer

from ottla.cli import output, stray
from ottla.cli.errors import CliError, ExitCode
from ottla.cli.examples import examples
from ottla.cli.positions import format_time
from ottla.cli.verify import verify
from ottla.types import Buffer

app = typer.Typer(no_args_is_help=True, help="Look into the files of a data directory.")
app.command(name="verify")(verify)
app.add_typer(stray.app, name="stray")

# Words of a text line that only repeat a default are left out.
SILENT = {
    "producer_id": -1,
    "producer_epoch": -1,
    "base_sequence": -1,
    "transactional": False,
    "control": False,
}


class FileKind(StrEnum):
    """The kinds of files that can be dumped."""

    LOG = "log"
    INDEX = "index"
    TIMEINDEX = "timeindex"
    TXNINDEX = "txnindex"
    SNAPSHOT = "snapshot"
    CHECKPOINT = "checkpoint"


@app.callback()
def log() -> None:
    """Look into the files of a data directory."""


@app.command(name="dump")
@examples(
    ("ottla log dump ./data/orders-0", "Print what is in the files of a partition."),
    (
        "ottla log dump ./data/orders-0/00000000000000000000.log --records --json",
        "Print the records of a segment as JSON.",
    ),
    ("ottla log dump ./data/orders-0 --type timeindex", "Print the entries of the time index."),
)
def dump_(
    file: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE",
            help="Segments (.log), indexes (.index, .timeindex, .txnindex), .snapshot files or checkpoints; "
            "or a partition's folder, for all of these in it.",
        ),
    ],
    records: Annotated[bool, typer.Option("--records", "-r", help="Also the records in each batch.")] = False,
    kind: Annotated[
        FileKind | None,
        typer.Option(
            "--type", help="What the file is, where its name does not say; which files of a folder."
        ),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print a JSON document in each line, one for each entry.")
    ] = False,
) -> None:
    """Print the batches of a segment, or the entries of an index, a snapshot or a checkpoint.

    Everything is checked on the way: the first corrupt position ends it with code 1.
    """
    # Only this command needs the formats: the others start the sooner without.
    from ottla.cli import dump

    paths = [path for given in file for path in _files(given, kind.value if kind else None)]
    for path in paths:
        if len(paths) > 1 and not json:
            output.say(f"{path}:")
        _dump(path, kind.value if kind else dump.kind_of(path), records, json)


def _files(path: str, kind: str | None) -> list[str]:
    """The files to dump: this one, or those of this folder that a log consists of (of one kind), by name."""
    from ottla.cli import dump

    if not os.path.isdir(path):
        return [path]
    try:
        names = sorted(os.listdir(path))
    except OSError as error:
        raise CliError(f"{path}: {(error.strerror or str(error)).lower()}") from None
    found = [
        os.path.join(path, name)
        for name in names
        if (known := dump.kind_of(name)) is not None and kind in (None, known)
    ]
    if not found:
        raise CliError(f"{path}: no log files in this folder; give a partition's", ExitCode.NOT_FOUND)
    return found


def _dump(path: str, kind: str | None, records: bool, json: bool) -> None:
    from ottla.cli import dump

    if kind is None:
        if not os.path.lexists(path):
            raise _no_file(path)
        raise CliError(f"{path}: not a log file by its name; say what it is with --type", ExitCode.USAGE)
    count = 0
    view = dump.view_of(path) if records else None
    data = _open(path)
    with output.progress(f"Reading {path}", len(data), prints=True) as show:
        try:
            for entry in dump.READERS[kind](data, dump.base_offset_of(path), view):
                count += 1
                if kind == "log":
                    show(entry["position"])
                if json:
                    output.print_json_line(entry)
                else:
                    _print(entry)
        except dump.Corrupt as error:
            place = "line" if kind == "checkpoint" else "position"
            raise CliError(f"{path}: corrupt at {place} {error.position}: {error}") from None
    if not count:
        output.note(f"{path}: empty")


def _open(path: str) -> Buffer:
    """The file's bytes, mapped rather than read: a segment may be larger than memory."""
    try:
        with open(path, "rb") as file:
            if not os.fstat(file.fileno()).st_size:
                return b""
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except FileNotFoundError:
        raise _no_file(path) from None
    except OSError as error:
        raise CliError(f"{path}: {(error.strerror or str(error)).lower()}") from None


def _no_file(path: str) -> CliError:
    return CliError(f"{path}: no such file", ExitCode.NOT_FOUND)


def _print(entry: dict[str, Any]) -> None:
    records = entry.pop("records", ())
    output.say(_line(entry))
    for record in records:
        output.say("  " + _line(record))


def _line(entry: dict[str, Any]) -> str:
    return " ".join(
        f"{_label(name)}={_word(name, value)}"
        for name, value in entry.items()
        if SILENT.get(name, ...) != value
    )


def _label(name: str) -> str:
    """Times are written out for people, and are no milliseconds then."""
    return name.removesuffix("_ms") if name.endswith("timestamp_ms") else name


def _word(name: str, value: Any) -> str:
    if name.endswith("timestamp_ms"):
        return format_time(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) or (isinstance(value, str) and name not in ("key", "value")):
        return str(value)
    if isinstance(value, list) and name == "headers":
        return ",".join(f"{header['key']}:{_word('value', header['value'])}" for header in value) or "-"
    # As JSON, so that a line stays a line whatever the record holds.
    return "null" if value is None else json_module.dumps(value, ensure_ascii=False)
