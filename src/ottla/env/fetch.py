"""What a file: or http(s): address has, read at once; for threads."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

SCHEMES = ("file", "http", "https")
READ_AT_ONCE_BYTES = 64 * 1024


def read_url(url: str, *, timeout_s: float, bytes_max: int) -> bytes:
    """The whole of it. OSError where it cannot be had, is larger than it may be, or takes longer.

    ``timeout_s``: until it is answered, for each step of that, and then until all is read.
    """
    if urlsplit(url).scheme not in SCHEMES:
        raise OSError(f"{url}: only {', '.join(SCHEMES)} addresses are read")
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as answer:
            return _read(answer, time.monotonic() + timeout_s, bytes_max)
    except (ValueError, HTTPException, urllib.error.HTTPError) as error:
        raise OSError(f"{url}: {error}") from error


def _read(answer: Any, deadline_s: float, bytes_max: int) -> bytes:
    """ValueError where it is too much, or comes drop by drop."""
    data = bytearray()
    while piece := answer.read1(READ_AT_ONCE_BYTES):
        data += piece
        if len(data) > bytes_max:
            raise ValueError(f"more than {bytes_max} bytes")
        if time.monotonic() > deadline_s:
            raise ValueError("it takes too long to come")
    return bytes(data)
