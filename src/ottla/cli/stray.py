"""`ottla log stray`: partition folders that a broker has set aside, with no broker needed."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ottla.cli import output
from ottla.cli.data_directory import check_data_directory, take, tell_of_others
from ottla.cli.errors import CliError, ExitCode
from ottla.cli.examples import examples
from ottla.text import id_text

if TYPE_CHECKING:
    from ottla.log.adoption import Description

HELP = (
    "Folders that a broker has set aside: their topic id is not that of the topic of their name, or the node "
    "does not hold the partition any more. Nothing in them is served or removed before you say so."
)

app = typer.Typer(no_args_is_help=True, help=HELP)

Data = Annotated[str, typer.Argument(metavar="DIR", help="The broker's data directory.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document, for programs.")]
FOLDER_HELP = "The folder, as 'list' shows it."


@app.callback()
def stray() -> None:
    """Folders that a broker has set aside."""


@app.command(name="list")
@examples(
    ("ottla log stray list ./data", "List the folders that were set aside."),
    ("ottla log stray list ./data --json", "List them as JSON."),
)
def list_(data: Data, json: Json = False) -> None:
    """Show the folders that were set aside, and what their logs hold.

    Of the copies of one partition on several nodes, the one with the highest epoch, and the highest end
    within it, has everything that was acknowledged.
    """
    found = [_document(one) for one in _describe(data)]
    tell_of_others(data)
    if json:
        output.print_json(found)
        return
    columns = ("folder", "topic", "partition", "topic_id", "start", "end", "epoch", "bytes")
    rows = [tuple(document[name] for name in columns) for document in found]
    if rows:
        output.table([column.replace("_", " ") for column in columns], rows)
    else:
        output.note(f"{data}: nothing was set aside")


@app.command()
@examples(
    ("ottla log stray adopt ./data orders-0.4f9c-stray", "Put a folder back in the place of its partition."),
    ("ottla log stray adopt ./data orders-0.4f9c-stray --replace", "Set the log that is in its place aside."),
)
def adopt(
    data: Data,
    folder: Annotated[list[str], typer.Argument(metavar="FOLDER", help=FOLDER_HELP)],
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Where a log with records is in its place, set that aside instead."),
    ] = False,
    json: Json = False,
) -> None:
    """Put a folder that was set aside in its partition's place. The broker must not run.

    Where the topic was made again meanwhile, the folder takes on its id. In a cluster do this where the
    partition's leader will be: a follower's log is cut to what its leader has. docs/STORE.md says how.
    """
    from ottla.log.adoption import AdoptionRefused, find
    from ottla.log.adoption import adopt as put_in_place

    check_data_directory(data)
    done, errors = [], []
    directory = take(data)
    try:
        for name in folder:
            name = os.path.basename(name.rstrip("/"))
            if name not in {one.folder for one in find(directory.disk, data)}:
                errors.append(_not_there(data, name))
                continue
            try:
                adopted = put_in_place(directory, name, replace=replace)
            except AdoptionRefused as refusal:
                errors.append(CliError(str(refusal)))
            except OSError as error:
                errors.append(CliError(f"{name}: {(error.strerror or str(error)).lower()}"))
            else:
                aside = (
                    f"; what was there is {adopted.displaced}" if adopted.displaced.endswith("-stray") else ""
                )
                done.append((name, f"is {adopted.where} now{aside}"))
    finally:
        directory.release()
    output.report("folder", done, errors, json)


@app.command()
@examples(
    ("ottla log stray delete ./data orders-0.4f9c-stray", "Delete a folder. The command asks first."),
    (
        "ottla log stray delete ./data --all --yes",
        "Delete all folders that were set aside, without a question.",
    ),
)
def delete(
    data: Data,
    folder: Annotated[list[str] | None, typer.Argument(metavar="FOLDER", help=FOLDER_HELP)] = None,
    all_: Annotated[bool, typer.Option("--all", help="All that were set aside.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Remove folders that were set aside, with all records in them, for good. The broker may run."""
    from ottla.env.disk import RealDisk
    from ottla.log.adoption import remove

    found = {one.stray.folder: one for one in _describe(data)}
    names = list(found) if all_ else [os.path.basename(name.rstrip("/")) for name in folder or ()]
    if bool(folder) == all_:
        output.fail_usage("name folders, or give --all" + ("; not both" if all_ else ""))
    missing = [name for name in names if name not in found]
    if missing:
        raise _not_there(data, missing[0])
    if names and not yes:
        _confirm([found[name] for name in names])
    done, errors = [], []
    for name in names:
        try:
            remove(RealDisk(), data, name)
            done.append((name, "deleted"))
        except OSError as error:
            errors.append(CliError(f"{name}: {(error.strerror or str(error)).lower()}"))
    output.report("folder", done, errors, json)


def _confirm(doomed: list[Description]) -> None:
    if not sys.stdin.isatty():
        output.fail_usage("this removes records for good: give --yes")
    size = sum(one.size_bytes for one in doomed)
    text = f"Remove {output.counted(len(doomed), 'folder')} with {size} bytes for good?"
    if not typer.confirm(text, err=True):
        raise CliError("nothing was removed")


def _not_there(data: str, name: str) -> CliError:
    return CliError(
        f"{data}: {name} is no folder that was set aside; 'ottla log stray list' shows those that are",
        ExitCode.NOT_FOUND,
    )


def _describe(data: str) -> list[Description]:
    from ottla.env.disk import RealDisk
    from ottla.log.adoption import describe, find

    check_data_directory(data)
    disk = RealDisk()
    try:
        return [describe(disk, data, one) for one in find(disk, data)]
    except OSError as error:
        raise CliError(f"{error.filename or data}: {(error.strerror or str(error)).lower()}") from None


def _document(one: Description) -> dict[str, Any]:
    topic_id = one.stray.topic_id
    return {
        "folder": one.stray.folder,
        "topic": one.stray.where.topic,
        "partition": one.stray.where.partition,
        "topic_id": id_text(topic_id) if topic_id is not None else None,
        "start": one.start_offset if one.start_offset >= 0 else None,
        "end": one.end_offset if one.end_offset >= 0 else None,
        "epoch": one.leader_epoch if one.leader_epoch >= 0 else None,
        "bytes": one.size_bytes,
    }
