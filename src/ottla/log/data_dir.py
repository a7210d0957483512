"""The data directory itself: its lock, its identity, and what the last run left for this one to know."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Mapping
from typing import NamedTuple
from uuid import uuid4

from ottla.env.disk import Disk, Lock
from ottla.log.checkpoints import (
    CHECKPOINT_BYTES_MAX,
    PROPERTIES_BYTES_MAX,
    CheckpointDamaged,
    decode_offsets,
    decode_properties,
    encode_lines,
    encode_offsets,
    encode_properties,
)
from ottla.log.files import read_small
from ottla.log.folders import Suffix, parse_aside, parse_folder
from ottla.text import id_text
from ottla.types import TopicPartition

logger = logging.getLogger(__name__)

LOCK_FILE = ".lock"
META_PROPERTIES_FILE = "meta.properties"
CLEAN_SHUTDOWN_FILE = ".kafka_cleanshutdown"
RECOVERY_POINTS_FILE = "recovery-point-offset-checkpoint"
LOG_STARTS_FILE = "log-start-offset-checkpoint"
CLEANED_FILE = "cleaner-offset-checkpoint"
HIGH_WATERMARKS_FILE = "replication-offset-checkpoint"

CHECKPOINT_FILES = (RECOVERY_POINTS_FILE, LOG_STARTS_FILE, CLEANED_FILE, HIGH_WATERMARKS_FILE)
# Of the others there is none before there is anything to say.
KEPT_EMPTY = (RECOVERY_POINTS_FILE, LOG_STARTS_FILE)

REGISTRATION_FILE = "registration.json"

OTHER_CLUSTER = (
    "give the --store of its cluster, put its metadata.db back, or use another directory. Where that is "
    "lost, remove {path}: logs of topics that are not known are set aside then, see 'ottla log stray'"
)
META_VERSION = "1"
# Kafka's before KRaft had another.
META_VERSIONS = ("0", META_VERSION)
# What a file of the present version says.
META_NAMES = ("cluster.id", "node.id")
DAMAGED_IDENTITY = (
    "put it back from a copy, or remove it if the directory is this node's and of this cluster: it is "
    "written anew then"
)
CLEAN_SHUTDOWN_VERSION = 0
REGISTRATION_VERSION = 1


# Where `ottla serve --processes` has the folders of all nodes but the first, which has the directory itself.
NODES_FOLDER = "nodes"


class DataDirectoryError(OSError):
    """The data directory cannot be used; the message says why and what to do."""


class DataDirectoryInUse(DataDirectoryError):
    """Another process has locked it."""


def is_data_directory(disk: Disk, path: str) -> bool:
    """Whether a folder is a broker's data directory. Its name does not say: `node-1` may be a partition's."""
    return disk.exists(f"{path}/{META_PROPERTIES_FILE}")


def node_folder(path: str, first: int, node_id: int) -> str:
    """Where a node has its data, of those that share the directory ``path``; the first has all of it."""
    return path if node_id == first else f"{path}/{NODES_FOLDER}/{node_id}"


def others_with_data(disk: Disk, path: str) -> list[int]:
    """Ids of nodes, other than the first, that have partitions in the directory; those set aside count."""
    nodes = f"{path}/{NODES_FOLDER}"
    if not disk.exists(nodes + "/"):
        return []
    ids = sorted(int(name) for name in disk.list(nodes) if name.isascii() and name.isdigit())
    return [node_id for node_id in ids if _holds_partitions(disk, f"{nodes}/{node_id}")]


def _holds_partitions(disk: Disk, path: str) -> bool:
    for name in disk.list(path) if disk.exists(path + "/") else ():
        aside = parse_aside(name)
        if parse_folder(name) is not None or (aside is not None and aside.suffix is not Suffix.DELETE):
            return True
    return False


class DataDir:
    """A locked data directory (Kafka's log directory). ``DataDir.take`` locks one."""

    def __init__(self, disk: Disk, path: str, lock: Lock) -> None:
        self.disk = disk
        self.path = path
        self._lock = lock
        # What each checkpoint file holds, and in which turn it was written.
        self.checkpoints: dict[str, Mapping[TopicPartition, int]] = {}
        self._turns: dict[str, int] = {}
        self._writing = threading.Lock()

    @classmethod
    def take(cls, disk: Disk, path: str) -> DataDir:
        """Lock a directory, made where it is missing. DataDirectoryError where another broker has it."""
        try:
            make_to_stay(disk, path)
            lock = disk.lock(f"{path}/{LOCK_FILE}")
        except BlockingIOError as error:
            raise DataDirectoryInUse(
                f"the data directory {path} is in use by another broker: stop it, or use another directory"
            ) from error
        except FileExistsError as error:
            raise DataDirectoryError(f"the data directory {path} is not a directory") from error
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise DataDirectoryError(f"the data directory {path} cannot be used: {reason}") from error
        return cls(disk, path, lock)

    @property
    def is_new(self) -> bool:
        """Whether it is nobody's yet: neither marked by a node nor with a partition in it."""
        return not is_data_directory(self.disk, self.path) and not _holds_partitions(self.disk, self.path)

    def release(self) -> None:
        self._lock.release()

    def names(self) -> list[str]:
        return self.disk.list(self.path)

    # -- identity -----------------------------------------------------------------------------------------

    def check_identity(self, node_id: int, cluster_id: str | None) -> None:
        """Make sure that the directory is this node's; write down what it is where that is new.

        ``cluster_id`` None: not known yet. DataDirectoryError where it belongs to another.
        """
        path = f"{self.path}/{META_PROPERTIES_FILE}"
        known = self._read_identity(path)
        for name, value in (("node.id", str(node_id)), ("cluster.id", cluster_id)):
            if value is not None and known.get(name, value) != value:
                advice = OTHER_CLUSTER if name == "cluster.id" else "use another directory, or correct {path}"
                raise DataDirectoryError(
                    f"the data directory {self.path} belongs to {name} {known[name]}, not {value}: "
                    + advice.format(path=path)
                )
        wanted = {"version": META_VERSION, "node.id": str(node_id)}
        if cluster_id is not None:
            wanted["cluster.id"] = cluster_id
        wanted["directory.id"] = known.get("directory.id") or id_text(uuid4())
        if cluster_id is not None and wanted.items() - known.items():
            self.disk.write_file(path, encode_properties(known | wanted))

    def _read_identity(self, path: str) -> dict[str, str]:
        """What the file says of whose the directory is; nothing where there is none.

        DataDirectoryError where it is damaged (MetaPropertiesEnsemble.verify): the directory may be another
        node's, or of another cluster, whose logs this one would take for its own or set aside.
        """
        if not self.disk.exists(path):
            return {}
        try:
            known = decode_properties(read_small(self.disk, path, PROPERTIES_BYTES_MAX))
            if known.get("version") not in META_VERSIONS:
                raise CheckpointDamaged(f"its version is {known.get('version', 'missing')[:20]!r}")
            missing = [name for name in META_NAMES if name not in known]
            if known["version"] == META_VERSION and missing:
                raise CheckpointDamaged(f"{' and '.join(missing)} missing")
        except CheckpointDamaged as error:
            raise DataDirectoryError(f"{path} cannot be used: {error}; {DAMAGED_IDENTITY}") from error
        return known

    # -- the last shutdown --------------------------------------------------------------------------------

    def take_clean_mark(self) -> bool:
        """Whether the last shutdown was clean. Removes the mark: the next clean shutdown writes it."""
        path = f"{self.path}/{CLEAN_SHUTDOWN_FILE}"
        if not self.disk.exists(path):
            return False
        if self.disk.exists(path + "/"):
            logger.warning(
                "unclean shutdown: the mark of a clean shutdown is a directory, move it away: %s", path
            )
            return False
        self.disk.remove(path)
        self.disk.sync_dir(self.path)
        return True

    def leave_clean_mark(self) -> None:
        """All logs are closed and on disk (Kafka's CleanShutdownFileHandler, KIP-966)."""
        content = {"version": CLEAN_SHUTDOWN_VERSION, "brokerEpoch": -1}
        path = f"{self.path}/{CLEAN_SHUTDOWN_FILE}"
        self.disk.write_file(path, json.dumps(content, separators=(",", ":")).encode())

    # -- checkpoints --------------------------------------------------------------------------------------

    def read_offsets(self, name: str) -> dict[TopicPartition, int] | None:
        """A checkpoint file's offsets, empty where there is no file; None where it is damaged."""
        path = f"{self.path}/{name}"
        if not self.disk.exists(path):
            return {}
        try:
            offsets = decode_offsets(read_small(self.disk, path, CHECKPOINT_BYTES_MAX))
        except CheckpointDamaged as error:
            logger.warning("%s is damaged, ignoring it: %s", path, error)
            return None
        self.checkpoints[name] = offsets
        return dict(offsets)

    def holds(self, name: str, offsets: Mapping[TopicPartition, int]) -> bool:
        """Whether a checkpoint file is up to date."""
        return self.checkpoints.get(name, None if name in KEPT_EMPTY else {}) == offsets

    def write_offsets(
        self, name: str, offsets: Mapping[TopicPartition, int], turn: int, lines: list[str] | None = None
    ) -> None:
        """Have ``offsets`` in a checkpoint file, unless a later ``turn`` was faster. Blocks; thread-safe.

        ``lines``: what ``offset_line`` makes of them, where it is known, and that the file has others.
        """
        with self._writing:
            if turn < self._turns.get(name, turn):
                return
            if lines is not None or not self.holds(name, offsets):
                data = encode_offsets(offsets) if lines is None else encode_lines(lines)
                self.disk.write_file(f"{self.path}/{name}", data)
                self.checkpoints[name] = offsets
            self._turns[name] = turn


class Registration(NamedTuple):
    """A registration of this node: its epoch, the machine's start that it was in, and how it ended; where
    another one was about to be made, the incarnation of that and the machine's start then."""

    epoch: int
    boot_id: str
    clean: bool = False
    next_incarnation: int = 0
    next_boot_id: str = ""


class RegistrationMark:
    """The mark of this node's last registration with its cluster, in the data directory.

    It goes with the data: where it is missing, or of an older registration than the last one, data may be
    missing as well. (In Kafka it is the broker epoch in the file of the clean shutdown, KIP-966.)
    """

    def __init__(self, disk: Disk, path: str) -> None:
        self._disk = disk
        self._path = f"{path}/{REGISTRATION_FILE}"
        self.last = self._read()
        # A sync has failed: no registration of this process vouches for the data.
        self._doubtful = False

    def made(self, epoch: int, incarnation: int) -> bool:
        """Whether the registration with this epoch and incarnation was made with this data."""
        last = self.last
        return last is not None and (
            last.epoch == epoch or (incarnation != 0 and last.next_incarnation == incarnation)
        )

    def may_have_lost_data(self, epoch: int, incarnation: int = 0) -> bool:
        """Whether data may be missing that was here in the registration with ``epoch``, the node's last.

        It is all here after an orderly end. Otherwise what the process wrote is there unless the machine
        has been restarted since, with what was in its memory only.
        """
        last = self.last
        if last is None or not self.made(epoch, incarnation):
            return True
        boot_id = self._disk.boot_id()
        if last.epoch != epoch:
            # The process ended before it heard, or could write down, that it was registered.
            return not boot_id or boot_id != last.next_boot_id
        return not (last.clean or (boot_id and boot_id == last.boot_id))

    def registering(self, incarnation: int, own_epoch: int = -1) -> None:
        """Write down, synced, that a registration is about to be made, with all that the store credits this
        node with by now: what was lost before that has been given up. Blocks; OSError where it cannot.

        ``own_epoch``: the last registration that this process made, -1 where there is none.
        """
        boot_id = self._disk.boot_id()
        last = self.last or Registration(-1, "")
        if own_epoch >= 0 and last.epoch != own_epoch:
            # That could not be written down when it was made.
            last = Registration(own_epoch, boot_id)
        self._write(last._replace(next_incarnation=incarnation, next_boot_id=boot_id))

    def registered(self, epoch: int) -> None:
        """Write down, synced, that the data serves a new registration. Blocks; OSError where it cannot."""
        self._write(Registration(epoch, self._disk.boot_id()))

    def ended(self) -> None:
        """All that was written since is on the disk, and nothing more will be. Blocks."""
        if self.last is not None:
            self._write(self.last._replace(clean=True))

    def doubted(self) -> None:
        """A sync has failed: what is still in memory may be lost without a restart of the machine. Blocks."""
        self._doubtful = True
        if self.last is not None:
            self._write(self.last)

    def _read(self) -> Registration | None:
        if not self._disk.exists(self._path):
            return None
        try:
            content = json.loads(read_small(self._disk, self._path, PROPERTIES_BYTES_MAX))
            return Registration(
                int(content["epoch"]),
                str(content["boot_id"]),
                content["clean"] is True,
                int(content.get("next_incarnation", 0)),
                str(content.get("next_boot_id", "")),
            )
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError, CheckpointDamaged) as error:
            logger.warning("%s is damaged: the node joins as one that has lost data: %s", self._path, error)
            return None

    def _write(self, registration: Registration) -> None:
        if self._doubtful:
            registration = registration._replace(epoch=-1, next_incarnation=0)
        content = {"version": REGISTRATION_VERSION} | registration._asdict()
        self._disk.write_file(self._path, json.dumps(content, separators=(",", ":")).encode())
        self.last = registration


def make_to_stay(disk: Disk, path: str) -> None:
    """Make a directory, and those above it: a loss of power must not take it, with all that is in it."""
    missing = []
    above = path.rstrip("/")
    while above not in ("", "/") and not disk.exists(above):
        missing.append(above)
        above = os.path.dirname(above)
    disk.make_dirs(path)
    for made in missing:
        disk.sync_dir(os.path.dirname(made))
