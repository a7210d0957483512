"""Folders of new partitions, made where nobody has to wait for the disk: in a thread."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any
from uuid import UUID

from ottla.config import BrokerConfig
from ottla.env.clock import Clock
from ottla.env.disk import Disk
from ottla.errors import KafkaError
from ottla.log.file_cache import FileCache
from ottla.log.loading import Loader
from ottla.log.settings import LogConfig
from ottla.types import TopicPartition

logger = logging.getLogger(__name__)


class NewFolder:
    """One that is made once: by a thread, or by who cannot wait for that."""

    __slots__ = ("_error", "_load", "_loaded", "_lock", "topic_id")

    def __init__(self, topic_id: UUID, load: Callable[[], Loader]) -> None:
        self.topic_id = topic_id
        self._load = load
        self._lock = threading.Lock()
        self._loaded: Loader | None = None
        self._error: Exception | None = None

    def make(self) -> None:
        """Make the folder, unless that was done, or failed, before. Blocks; in any thread."""
        with self._lock:
            if self._loaded is None and self._error is None:
                try:
                    self._loaded = self._load()
                except Exception as error:  # noqa: BLE001 - raised where it is asked for
                    self._error = error

    def loaded(self) -> Loader:
        """What has been made, waiting for it where it is not there yet. OSError where it could not be."""
        self.make()
        if self._error is not None:
            raise self._error
        assert self._loaded is not None
        return self._loaded


class NewFolders:
    """Those that have been begun and not been taken yet. For the event loop, but for ``NewFolder.make``."""

    def __init__(
        self,
        disk: Disk,
        data_dir: str,
        clock: Clock,
        cache: FileCache,
        config: BrokerConfig,
        is_new: Callable[[TopicPartition], bool],
        remove: Callable[[TopicPartition, str], None],
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        """``is_new``: whether nothing is in a folder's place, or to be put right before it is made. What is
        given to ``spawn`` is waited for when the logs are closed."""
        self._disk = disk
        self._data_dir = data_dir
        self._clock = clock
        self._cache = cache
        self._config = config
        self._is_new = is_new
        self._remove = remove
        self._spawn = spawn
        self._begun: dict[TopicPartition, NewFolder] = {}

    def begin(self, where: TopicPartition, topic_id: UUID, config: LogConfig) -> NewFolder | None:
        """A partition's folder to be made; None where it is not new, or has been another topic's so far."""
        begun = self._begun.get(where)
        if begun is not None:
            return begun if begun.topic_id == topic_id else None
        if not self._is_new(where):
            return None
        loader = Loader(
            disk=self._disk,
            # Which files are open is the event loop's to count, from ``take`` on.
            cache=FileCache(self._disk),
            directory=self._directory(where),
            clean=False,
            recovery_point=None,
            log_start_offset=0,
            cleaned_offset=-1,
            now_ms=self._clock.now_ms(),
            producer_expiration_ms=self._config.get("producer.id.expiration.ms"),
            index_interval_bytes=config.index_interval_bytes,
            compacted=config.compacts,
            topic_id=topic_id,
        )
        made = self._begun[where] = NewFolder(topic_id, loader.load)
        return made

    async def make(self, folders: Sequence[NewFolder]) -> None:
        """Make folders that were begun, in a thread."""

        def make() -> None:
            for folder in folders:
                folder.make()

        async def work() -> None:
            await self._disk.run(make)

        # Who asked may go away.
        await asyncio.shield(self._spawn(work()))

    def take(self, where: TopicPartition, topic_id: UUID) -> Loader | None:
        """What a log is made of whose folder has been begun: this waits for it. None where it has not, or for
        another topic, whose folder goes. OSError where it cannot be made."""
        begun = self._begun.get(where)
        if begun is None:
            return None
        if begun.topic_id != topic_id:
            self.drop(where, begun)
            return None
        del self._begun[where]
        loaded = begun.loaded()
        loaded.cache = self._cache
        loaded.aborted.move_to(self._cache)
        for segment in loaded.segments:
            segment.move_to(self._cache)
        return loaded

    def drop(self, where: TopicPartition, folder: NewFolder) -> None:
        """Remove a folder that nobody has taken: its topic is gone."""
        if self._begun.get(where) is not folder:
            return
        del self._begun[where]
        try:
            loaded = folder.loaded()
        except (KafkaError, OSError) as error:
            logger.warning("%s could not be made: %s", self._directory(where), error)
        else:
            for segment in loaded.segments:
                segment.close()
        if self._disk.exists(self._directory(where)):
            self._remove(where, self._directory(where))

    def _directory(self, where: TopicPartition) -> str:
        return f"{self._data_dir}/{where}"
