"""Partition folders that belong to nothing that this node holds (Kafka's stray logs).

They come about where the metadata knows less than the disk: it was lost, or restored from a backup, or a
topic was deleted, or a replica moved away, while the node was down. Such a folder is renamed and otherwise
left as it is (LogManager.isStrayReplica): acknowledged records are removed by an explicit command only
(``ottla log stray``).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import NamedTuple
from uuid import UUID

from ottla.env.disk import Disk
from ottla.log.checkpoints import CHECKPOINT_BYTES_MAX, CheckpointDamaged, decode_offsets, encode_offsets
from ottla.log.files import LOG_SUFFIX, offset_of, read_small, read_topic_id
from ottla.log.folders import Aside, Suffix, aside_name, parse_aside, parse_folder
from ottla.types import TopicPartition

logger = logging.getLogger(__name__)

# In a folder that is set aside: its partition's full name and where its log starts, in the format of the file
# of this name beside the folders. Only where the folder itself does not tell.
NOTE_FILE = "log-start-offset-checkpoint"


class Stray(NamedTuple):
    """A folder that was set aside. ``topic_id`` None: it does not tell."""

    folder: str
    where: TopicPartition
    topic_id: UUID | None
    log_start_offset: int


def set_aside(disk: Disk, data_dir: str, where: TopicPartition, log_start_offset: int = 0) -> str:
    """Rename a partition's folder, as Kafka does; its new name. Blocks. OSError where the disk fails."""
    directory, folder = f"{data_dir}/{where}", aside_name(where, Suffix.STRAY)
    if log_start_offset > 0 or not folder.startswith(f"{where}."):
        disk.write_file(f"{directory}/{NOTE_FILE}", encode_offsets({where: log_start_offset}))
    else:
        # One of an earlier time.
        disk.remove(f"{directory}/{NOTE_FILE}")
    disk.rename(directory, f"{data_dir}/{folder}")
    disk.sync_dir(data_dir)
    return folder


def stray_folders(disk: Disk, data_dir: str, names: Iterable[str]) -> dict[str, Aside]:
    """Those of the folders that were set aside."""
    found = {}
    for name in names:
        aside = parse_aside(name)
        if aside is not None and aside.suffix is Suffix.STRAY and disk.exists(f"{data_dir}/{name}/"):
            found[name] = aside
    return found


def read_stray(disk: Disk, data_dir: str, folder: str, aside: Aside) -> Stray:
    """What a folder that was set aside says of itself. OSError where it cannot be read."""
    directory = f"{data_dir}/{folder}"
    where, log_start_offset = TopicPartition(aside.topic, aside.partition), 0
    path = f"{directory}/{NOTE_FILE}"
    if disk.exists(path):
        try:
            for noted, offset in decode_offsets(read_small(disk, path, CHECKPOINT_BYTES_MAX)).items():
                is_own = noted.partition == aside.partition and noted.topic.startswith(aside.topic)
                if is_own and parse_folder(str(noted)) == noted:
                    where, log_start_offset = noted, offset
        except CheckpointDamaged as error:
            logger.warning("%s is damaged, ignoring it: %s", path, error)
    return Stray(folder, where, read_topic_id(disk, directory), log_start_offset)


def find_own(
    disk: Disk, data_dir: str, folders: dict[str, Aside], where: TopicPartition, topic_id: UUID
) -> Stray | None:
    """The folder that was set aside and is that of this very partition, by its topic's id.

    None where there is none, or more than one: which of them counts is not for us to say.
    """
    found = []
    for name, aside in folders.items():
        if aside.partition == where.partition and where.topic.startswith(aside.topic):
            stray = read_stray(disk, data_dir, name, aside)
            if stray.topic_id == topic_id and stray.where == where:
                found.append(stray)
    if len(found) > 1:
        names = ", ".join(stray.folder for stray in found)
        logger.error(
            "stray partitions in %s: several folders of %s, none is put back: %s", data_dir, where, names
        )
    return found[0] if len(found) == 1 else None


def holds_records(disk: Disk, directory: str) -> bool:
    """Whether any segment in a partition's folder has bytes. OSError where it cannot be read."""
    return any(
        name.endswith(LOG_SUFFIX) and offset_of(name) is not None and disk.size(f"{directory}/{name}") > 0
        for name in disk.list(directory)
    )
