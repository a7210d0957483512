"""`ottla log verify`: go through all that lies in a data directory, and mend what follows from the logs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ottla.cli import output
from ottla.cli.data_directory import (
    check_data_directory,
    check_directory,
    is_data_directory,
    take,
    tell_of_others,
)
from ottla.cli.errors import CliError, ExitCode
from ottla.cli.examples import examples

if TYPE_CHECKING:
    from ottla.log.data_dir import DataDir
    from ottla.log.verify import Problem, Verified

REMEDIES = {
    "repair": "--repair writes it anew",
    "start": "the next start mends it, or cuts off what was not synced",
    "none": "nothing here; another replica may have it",
}


@examples(
    ("ottla log verify ./data", "Check all logs of a data directory."),
    (
        "ottla log verify ./data/orders-0 --repair",
        "Check one partition, and rebuild the files that can be rebuilt.",
    ),
)
def verify(
    directory: Annotated[
        str, typer.Argument(metavar="DIR", help="A broker's data directory, or a partition's folder in it.")
    ],
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="Build indexes and epochs again from the logs, and remove snapshots that are wrong.",
        ),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document, for programs.")] = False,
) -> int:
    """Read every batch, and hold the files beside the logs against them. The broker must not run.

    What is damaged is listed, with the position in bytes where that makes sense, and what helps. A damaged
    batch cannot be mended: its records are lost unless another replica has them; all others stay readable.
    The code is 1 where anything is left that is not as it should be.
    """
    check_directory(directory)
    data, folders = _folders(directory)
    if not folders:
        check_data_directory(data)
    held = take(data)
    try:
        results = _verify(held, folders, repair)
        problems = _of_checkpoints(held) if folders and data == directory.rstrip("/") else []
    except OSError as error:
        raise CliError(f"{error.filename or data}: {(error.strerror or str(error)).lower()}") from None
    finally:
        held.release()
    problems += [problem for result in results for problem in result.problems]
    repaired = {path for result in results for path in result.repaired}
    _show(results, problems, repaired, json)
    if data == directory.rstrip("/"):
        tell_of_others(data)
    return ExitCode.OK if all(problem.path in repaired for problem in problems) else ExitCode.FAILED


def _folders(directory: str) -> tuple[str, list[str]]:
    """The data directory, and the names of the partitions' folders in it that are meant."""
    from ottla.log.folders import Suffix, parse_aside, parse_folder

    def holds_log(name: str) -> bool:
        aside = parse_aside(name)
        return parse_folder(name) is not None or (aside is not None and aside.suffix is Suffix.STRAY)

    path = os.path.abspath(directory)
    if holds_log(os.path.basename(path)) and not is_data_directory(path):
        return os.path.dirname(path), [os.path.basename(path)]
    try:
        names = sorted(os.listdir(directory))
    except OSError as error:
        raise CliError(f"{directory}: {(error.strerror or str(error)).lower()}") from None
    data = directory.rstrip("/") or "/"
    return data, [name for name in names if holds_log(name) and _is_partition(f"{data}/{name}")]


def _is_partition(path: str) -> bool:
    """Whether a folder of a partition's name is one, and no data directory of another broker."""
    from ottla.env.disk import RealDisk
    from ottla.log.data_dir import is_data_directory as has_identity

    return os.path.isdir(path) and not has_identity(RealDisk(), path)


def _verify(data: DataDir, folders: list[str], repair: bool) -> list[Verified]:
    from ottla.log.data_dir import CLEAN_SHUTDOWN_FILE, CLEANED_FILE, LOG_STARTS_FILE
    from ottla.log.verify import PartitionVerifier, segment_bytes

    disk, path = data.disk, data.path
    is_clean = disk.exists(f"{path}/{CLEAN_SHUTDOWN_FILE}")
    compacted = {str(where) for where in data.read_offsets(CLEANED_FILE) or {}}
    starts = {str(where): offset for where, offset in (data.read_offsets(LOG_STARTS_FILE) or {}).items()}
    total = sum(segment_bytes(disk, f"{path}/{name}") for name in folders)
    results, before = [], 0
    with output.progress(f"Reading {path}", total) as show:
        for name in folders:

            def done(count: int, before: int = before) -> None:
                show(before + count)

            verifier = PartitionVerifier(
                disk,
                f"{path}/{name}",
                is_clean=is_clean,
                is_compacted=name in compacted,
                log_start_offset=starts.get(name, 0),
                repair=repair,
                done=done,
            )
            results.append(verifier.verify())
            before += results[-1].size_bytes
    return results


def _of_checkpoints(data: DataDir) -> list[Problem]:
    """What is wrong with the checkpoints of a data directory: the next start passes over them."""
    from ottla.log.checkpoints import CHECKPOINT_BYTES_MAX, CheckpointDamaged, decode_offsets
    from ottla.log.data_dir import CHECKPOINT_FILES
    from ottla.log.files import read_small
    from ottla.log.verify import Problem, Remedy

    problems = []
    for name in CHECKPOINT_FILES:
        path = f"{data.path}/{name}"
        try:
            if data.disk.exists(path):
                decode_offsets(read_small(data.disk, path, CHECKPOINT_BYTES_MAX))
        except CheckpointDamaged as error:
            problems.append(Problem(path, -1, str(error), Remedy.START))
    return problems


def _show(results: list[Verified], problems: list[Problem], repaired: set[str], json: bool) -> None:
    totals: dict[str, Any] = {
        "folders": len(results),
        "batches": sum(result.batches for result in results),
        "bytes": sum(result.size_bytes for result in results),
    }
    if json:
        output.print_json(totals | {"problems": [_document(one, one.path in repaired) for one in problems]})
        return
    rows = [
        (
            problem.path,
            problem.position if problem.position >= 0 else None,
            problem.message,
            "repaired" if problem.path in repaired else REMEDIES[problem.remedy],
        )
        for problem in problems
    ]
    if rows:
        output.table(("file", "position", "problem", "what helps"), rows)
    output.note(
        f"{output.counted(totals['folders'], 'folder')}, {output.counted(totals['batches'], 'batch', 'es')}, "
        f"{output.counted(totals['bytes'], 'byte')}: {output.counted(len(problems), 'problem')}"
    )


def _document(problem: Problem, repaired: bool) -> dict[str, Any]:
    return {
        "file": problem.path,
        "position": problem.position if problem.position >= 0 else None,
        "problem": problem.message,
        "remedy": problem.remedy.value,
        "repaired": repaired,
    }
