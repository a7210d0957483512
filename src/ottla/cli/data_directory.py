"""A broker's data directory as the commands that read files meet it: which it is, and that nobody uses it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ottla.cli import output
from ottla.cli.errors import CliError, ExitCode

if TYPE_CHECKING:
    from ottla.log.data_dir import DataDir


def check_directory(path: str) -> None:
    """CliError where there is no directory."""
    if not os.path.isdir(path):
        what = "it is not a directory" if os.path.lexists(path) else "no such directory"
        raise CliError(f"{path}: {what}", ExitCode.NOT_FOUND)


def is_data_directory(path: str) -> bool:
    """Whether a directory has what a broker's has. Its name says nothing: `node-1` looks like a partition's.
    CliError where it cannot be read."""
    from ottla.env.disk import RealDisk
    from ottla.log import data_dir
    from ottla.log.folders import parse_aside, parse_folder

    disk = RealDisk()
    try:
        names = os.listdir(path)
    except OSError as error:
        raise CliError(f"{path}: {(error.strerror or str(error)).lower()}") from None
    return data_dir.is_data_directory(disk, path) or any(
        (parse_folder(name) is not None or parse_aside(name) is not None)
        and not data_dir.is_data_directory(disk, f"{path}/{name}")
        for name in names
    )


def check_data_directory(path: str) -> None:
    """CliError where a directory is none of a broker: a mistyped one is not to pass for one that is sound."""
    check_directory(path)
    if not is_data_directory(path):
        from ottla.log.data_dir import META_PROPERTIES_FILE

        raise CliError(
            f"{path} is no broker's data directory: it has neither {META_PROPERTIES_FILE} nor a partition's "
            "folder",
            ExitCode.NOT_FOUND,
        )


def take(path: str) -> DataDir:
    """Lock a data directory. CliError where a broker has it, or where it cannot be locked."""
    from ottla.env.disk import RealDisk
    from ottla.log.data_dir import DataDir, DataDirectoryError, DataDirectoryInUse

    try:
        return DataDir.take(RealDisk(), path)
    except DataDirectoryInUse:
        raise CliError(f"the data directory {path} is in use by a broker: stop it first") from None
    except DataDirectoryError as error:
        raise CliError(str(error)) from None


def tell_of_others(path: str) -> None:
    """Say where else there are partitions: a data directory of several processes has one of each in it."""
    from ottla.env.disk import RealDisk
    from ottla.log.data_dir import NODES_FOLDER, others_with_data

    for node_id in others_with_data(RealDisk(), path):
        output.warn(f"node {node_id} has partitions, too: look into {path}/{NODES_FOLDER}/{node_id} as well")
