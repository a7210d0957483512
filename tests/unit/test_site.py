"""Which pages the site has, and where in its navigation (scripts/site_pages.py)."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site_pages() -> ModuleType:
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        spec = importlib.util.spec_from_file_location("site_pages", ROOT / "scripts/site_pages.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(str(ROOT / "scripts"))


def flat(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    return [name for one in (nav.values() if isinstance(nav, dict) else nav) for name in flat(one)]


def test_pages_are_those_that_readers_come_to_and_what_they_show(
    site_pages: ModuleType, tmp_path: Path
) -> None:
    for folder in ("docs/decisions", "src"):
        (tmp_path / folder).mkdir(parents=True)
    text = "# Top\n\n## Where to read more\n\nThe first hour:\n\n- [b](docs/b.md)\n- [why](docs/decisions/)\n"
    for name, written in {
        "README.md": text,
        "docs/b.md": "# `b`, a page\n[code](../src/code.txt) [c](../c.md#x)\n",
        "docs/decisions/README.md": "# All decisions\n",
        "docs/decisions/1.md": "# 1. One\n",
        "docs/d.md": "no heading\n",
        "c.md": "# C\n",
        "src/code.txt": "",
        "src/other.txt": "",
    }.items():
        (tmp_path / name).write_text(written)
    found = site_pages.gathered(tmp_path)
    assert sorted(found) == [
        "README.md",
        "c.md",
        "docs/b.md",
        "docs/d.md",
        "docs/decisions/1.md",
        "docs/decisions/README.md",
        "src/code.txt",
    ]
    decisions = ["docs/decisions/README.md", {"1. One": "docs/decisions/1.md"}]
    assert site_pages.navigation(tmp_path, found) == [
        {"Home": "README.md"},
        {"The first hour": [{"b, a page": "docs/b.md"}, {"Decisions": decisions}]},
        {"More": [{"docs/d.md": "docs/d.md"}, {"C": "c.md"}]},
    ]


def test_each_page_is_in_the_navigation_once(site_pages: ModuleType) -> None:
    found = site_pages.gathered(ROOT)
    named = flat(site_pages.navigation(ROOT, found))
    assert sorted(named) == sorted(name for name in found if name.endswith(".md"))
    assert {"docs/TESTING.md", "CHANGELOG.md", "examples/README.md"} <= set(named)
