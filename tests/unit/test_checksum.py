"""CRC-32C is what another implementation says, of whatever holds bytes."""

from __future__ import annotations

import mmap
from collections.abc import Callable

import crc32c as other
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ottla.checksum import crc32c


def test_it_is_crc_32c() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(b"6789", crc32c(memoryview(b"12345"))) == 0xE3069283
    assert crc32c(b"") == 0


@given(st.binary(max_size=300), st.integers(1, 200), st.integers(0, 40_000))
def test_it_is_what_another_says_however_it_is_cut(data: bytes, times: int, cut: int) -> None:
    """Sizes on both sides of what the function does in other ways: a few bytes, vectors, without the lock."""
    whole = data * times
    assert crc32c(whole) == other.crc32c(whole)
    assert crc32c(whole[cut:], crc32c(memoryview(whole)[:cut])) == other.crc32c(whole)


@pytest.mark.parametrize("holder", [bytes, bytearray, memoryview, lambda data: memoryview(bytearray(data))])
def test_it_takes_what_holds_bytes(holder: Callable[[bytes], bytes]) -> None:
    assert crc32c(holder(b"123456789")) == 0xE3069283


def test_it_takes_a_file_that_is_mapped() -> None:
    with mmap.mmap(-1, 9) as mapped:
        mapped[:] = b"123456789"
        assert crc32c(mapped) == 0xE3069283
