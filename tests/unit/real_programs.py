"""Small programs that worlds in real time start in tests."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Order:
    """Comes to a program as an argument."""

    number: int


def greet(order: Order) -> None:
    print("order", order.number)


async def greet_later(name: str) -> None:
    await asyncio.sleep(0.01)
    print("hello", name)


def fail() -> None:
    raise RuntimeError("no more shoes")


def tick(file: Path) -> None:
    """Appends a byte again and again, for ever."""
    while True:
        with file.open("ab") as opened:
            opened.write(b".")
        time.sleep(0.01)


def family(file: Path) -> None:
    """Writes down its id, that of a child, and that of one which has left the group; and goes on for ever."""
    sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
    child = subprocess.Popen(sleeper)
    other = subprocess.Popen(sleeper, start_new_session=True)
    file.with_suffix(".new").write_text(f"{os.getpid()} {child.pid} {other.pid}")
    file.with_suffix(".new").rename(file)
    time.sleep(600)


def chat() -> None:
    """Prints much, then a last line, and goes on for ever."""
    for _ in range(100):
        print("x" * 99_999)
    print("the last line")
    time.sleep(600)
