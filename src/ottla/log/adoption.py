"""What people do with folders that were set aside, while no broker runs: look, adopt, remove.

Adopting makes such a folder the log of the partition whose place it has by its name. Where a topic was made
again it takes on that topic's id; what is in its place must hold no records, or is set aside in turn.
"""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID

from ottla.env.disk import Disk, File
from ottla.log.checkpoints import encode_partition_metadata
from ottla.log.data_dir import CHECKPOINT_FILES, LOG_STARTS_FILE, DataDir
from ottla.log.files import LOG_SUFFIX, PARTITION_METADATA_FILE, offset_of, read_topic_id
from ottla.log.folders import Suffix, aside_name, parse_aside
from ottla.log.strays import Stray, holds_records, read_stray, set_aside, stray_folders
from ottla.types import TopicPartition
from ottla.wire.records import HEADER_BYTES, read_header


class AdoptionRefused(Exception):
    """The folder cannot be what is asked of it; says why and what to do."""


class Description(NamedTuple):
    """A stray and what its log holds. Offsets and epoch -1: there is no batch that makes sense."""

    stray: Stray
    start_offset: int
    end_offset: int
    leader_epoch: int
    size_bytes: int


class Adopted(NamedTuple):
    """What came of an adoption. ``displaced``: where is what was in its place, empty where nothing was."""

    where: TopicPartition
    topic_id: UUID | None
    displaced: str


def find(disk: Disk, data_dir: str) -> list[Stray]:
    """The folders that were set aside, by name. OSError where the directory cannot be read."""
    folders = stray_folders(disk, data_dir, disk.list(data_dir))
    return [read_stray(disk, data_dir, name, aside) for name, aside in folders.items()]


def describe(disk: Disk, data_dir: str, stray: Stray) -> Description:
    """What is in a stray, by the headers of its last segment. Blocks; changes nothing."""
    directory = f"{data_dir}/{stray.folder}"
    sizes = {
        name: disk.size(f"{directory}/{name}") for name in disk.list(directory) if offset_of(name) is not None
    }
    logs = sorted(name for name in sizes if name.endswith(LOG_SUFFIX))
    if not logs:
        return Description(stray, -1, -1, -1, sum(sizes.values()))
    start, end, epoch = offset_of(logs[0]), offset_of(logs[-1]), -1
    assert start is not None and end is not None
    for name in reversed(logs):
        file = disk.open(f"{directory}/{name}")
        try:
            found = _last_batch(file)
        finally:
            file.close()
        if found is not None:
            end, epoch = max(end, found[0]), found[1]
            break
    return Description(stray, max(start, stray.log_start_offset), end, epoch, sum(sizes.values()))


def _last_batch(file: File) -> tuple[int, int] | None:
    """The offset behind the last batch of a segment, and its leader epoch; None where there is none."""
    found, position = None, 0
    while position + HEADER_BYTES <= file.size():
        header = read_header(file.read(position, HEADER_BYTES))
        if header.size < HEADER_BYTES or position + header.size > file.size():
            break
        found = header.next_offset, header.partition_leader_epoch
        position += header.size
    return found


def adopt(data: DataDir, folder: str, *, replace: bool) -> Adopted:
    """Put a folder that was set aside in its partition's place. Blocks; the directory must be locked.

    ``replace``: also where a log with records is there, which is set aside then. AdoptionRefused where it
    cannot be; OSError where the disk fails: then nothing is lost, and the next start, or the same again,
    finishes it.
    """
    disk, aside = data.disk, parse_aside(folder)
    if aside is None or aside.suffix is not Suffix.STRAY or not disk.exists(f"{data.path}/{folder}/"):
        raise AdoptionRefused(f"{folder} is no folder that was set aside")
    stray = read_stray(disk, data.path, folder, aside)
    if aside.may_be_short and stray.where.topic == aside.topic:
        raise AdoptionRefused(
            f"{folder} does not tell its topic's full name: rename it to TOPIC-{aside.partition}"
        )
    where, directory = stray.where, f"{data.path}/{stray.where}"
    topic_id, displaced = stray.topic_id, ""
    if disk.exists(directory):
        topic_id = _id_to_take_on(disk, directory, stray, replace)
        path = f"{data.path}/{folder}/{PARTITION_METADATA_FILE}"
        disk.write_file(path, encode_partition_metadata(topic_id))
        displaced = _displace(data, where)
    _forget(data, where, stray.log_start_offset)
    disk.rename(f"{data.path}/{folder}", directory)
    disk.sync_dir(data.path)
    return Adopted(where, topic_id, displaced)


def _id_to_take_on(disk: Disk, directory: str, stray: Stray, replace: bool) -> UUID:
    """The topic id of the folder that is in the place of a stray. AdoptionRefused where that must stay."""
    if not disk.exists(directory + "/"):
        raise AdoptionRefused(f"{directory} is a file: move it away")
    found = read_topic_id(disk, directory)
    if found is None:
        raise AdoptionRefused(f"{directory} does not tell its topic's id: start the broker once, and stop it")
    if holds_records(disk, directory) and not replace:
        same = "the same topic id" if found == stray.topic_id else f"topic id {found}"
        raise AdoptionRefused(
            f"{directory}, of {same}, holds records: with --replace it is set aside instead"
        )
    return found


def _displace(data: DataDir, where: TopicPartition) -> str:
    """Have a partition's place free. What is there is set aside, or goes at the next start if it is empty."""
    directory = f"{data.path}/{where}"
    if holds_records(data.disk, directory):
        starts = data.read_offsets(LOG_STARTS_FILE) or {}
        return set_aside(data.disk, data.path, where, starts.get(where, 0))
    folder = aside_name(where, Suffix.DELETE)
    data.disk.rename(directory, f"{data.path}/{folder}")
    return folder


def _forget(data: DataDir, where: TopicPartition, log_start_offset: int) -> None:
    """Take out of the checkpoints what they say of another log of this partition."""
    for name in CHECKPOINT_FILES:
        offsets = data.read_offsets(name)
        if offsets is None:
            continue
        offsets.pop(where, None)
        if name == LOG_STARTS_FILE and log_start_offset > 0:
            offsets[where] = log_start_offset
        data.write_offsets(name, offsets, 0)


def remove(disk: Disk, data_dir: str, folder: str) -> None:
    """Remove a folder that was set aside, for good. Blocks. OSError where the disk fails.

    It is renamed first, so that a broker which starts meanwhile takes it whole or not at all.
    """
    aside = parse_aside(folder)
    if aside is None or aside.suffix is not Suffix.STRAY:
        raise AdoptionRefused(f"{folder} is no folder that was set aside")
    doomed = f"{data_dir}/{aside_name(TopicPartition(aside.topic, aside.partition), Suffix.DELETE)}"
    disk.rename(f"{data_dir}/{folder}", doomed)
    disk.remove_tree(doomed)
