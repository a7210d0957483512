"""The lives of the nodes of a cluster for tests, which share one event loop: what ends with each of them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import ContextVar
from typing import Any, TypeVar

from ottla.env.disk import RealDisk
from ottla.node import Node

T = TypeVar("T")


class Life:
    """One run of a node, from a start to its end: what it holds, and the tasks that are its."""

    def __init__(self) -> None:
        self.node: Node
        self.disk = RealDisk()
        self.tasks: set[asyncio.Future[Any]] = set()

    async def end(self) -> None:
        """Have nothing of it run any more, as when its process has ended."""
        own = asyncio.current_task()
        left = [task for task in self.tasks if task is not own and not task.done()]
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)
        self.disk.close()


# Whose code runs: a life of a node. Tasks have the life in which they were made.
CURRENT: ContextVar[Life | None] = ContextVar("life", default=None)


def task_of_life(
    loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T], **options: Any
) -> asyncio.Task[T]:
    """A task, noted with the life of the node that makes it."""
    task = asyncio.Task(work, loop=loop, **options)
    life = CURRENT.get()
    if life is not None:
        life.tasks.add(task)
        task.add_done_callback(life.tasks.discard)
    return task
