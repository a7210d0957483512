"""What a file: or http(s): address has, read at once; for threads."""

from __future__ import annotations

import urllib.error
import urllib.request
from urllib.parse import urlsplit

SCHEMES = ("file", "http", "https")


def read_url(url: str, *, timeout_s: float, bytes_max: int) -> bytes:
    """The whole of it. OSError where it cannot be had, or is larger than it may be."""
    if urlsplit(url).scheme not in SCHEMES:
        raise OSError(f"{url}: only {', '.join(SCHEMES)} addresses are read")
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as answer:
            data: bytes = answer.read(bytes_max + 1)
    except (ValueError, urllib.error.HTTPError) as error:
        raise OSError(f"{url}: {error}") from error
    if len(data) > bytes_max:
        raise OSError(f"{url}: more than {bytes_max} bytes")
    return data
