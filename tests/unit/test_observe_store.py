"""Since when the metadata store is away, by whichever notices first: who asks it, or who follows it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ottla.observe.parts import Parts


@pytest.mark.parametrize(
    ("silent_s", "unfollowed_s", "away_s"), [(None, None, None), (3, None, 3), (None, 2, 2), (1, 4, 4)]
)
def test_the_store_is_away_since_the_first_of_its_failures(
    silent_s: float | None, unfollowed_s: float | None, away_s: float | None
) -> None:
    async def main() -> float | None:
        now_s = asyncio.get_running_loop().time()

        def ago(seconds: float | None) -> float | None:
            return None if seconds is None else now_s - seconds

        parts = SimpleNamespace(
            store=SimpleNamespace(silent_since_s=ago(silent_s)),
            services=SimpleNamespace(metadata=SimpleNamespace(away_since_s=ago(unfollowed_s))),
        )
        return Parts.store_away_s(cast(Any, parts))

    found = asyncio.run(main())
    assert found is None if away_s is None else found is not None and away_s <= found < away_s + 60
