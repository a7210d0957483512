"""Licences: each package that Ottla needs at run time is listed, with the licence that it says it has."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from licences_docs import PACKAGES, PROJECT, requirements

COPYLEFT = re.compile(r"GPL|MPL|EPL|EUPL|CDDL|OSL|copyleft|General Public", re.IGNORECASE)
# What metadata from before SPDX says, and what it means.
MEANT = {
    "MIT License": "MIT",
    "The MIT License": "MIT",
    "Apache Software License": "Apache-2.0",
    "ISC License": "ISC",
    "ISC License (ISCL)": "ISC",
    "3-Clause BSD License": "BSD-3-Clause",
}
EXTRAS = [extra for extra in PROJECT["optional-dependencies"] if extra not in ("all", "test")]


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def installed(needed: Iterable[str]) -> dict[str, str | None]:
    """The packages that requirements lead to, with the licences that they say. None: it is not installed."""
    found: dict[str, str | None] = {}
    todo = [Requirement(one) for one in needed]
    seen: set[tuple[str, frozenset[str]]] = set()
    while todo:
        requirement = todo.pop()
        name, extras = normal(requirement.name), frozenset(requirement.extras)
        if name == "ottla" or (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            metadata = distribution(name).metadata
        except PackageNotFoundError:
            found[name] = None
            continue
        found[name] = said(name)
        for more in map(Requirement, metadata.get_all("Requires-Dist") or []):
            if not more.marker or any(more.marker.evaluate({"extra": extra}) for extra in extras or {""}):
                todo.append(more)
    return found


@cache
def said(name: str) -> str:
    """What a package says of its licence, by its SPDX name where that can be told."""
    metadata = distribution(name).metadata
    old = re.sub(r" \(.*", "", (metadata.get("License") or "").partition("\n")[0])
    classifiers = [
        one.rpartition(" :: ")[2] for one in metadata.get_all("Classifier") or [] if "License ::" in one
    ]
    text = next(filter(None, (metadata.get("License-Expression"), old, *classifiers)), "")
    return MEANT.get(text, text)


@pytest.mark.parametrize("extra", ["", *EXTRAS])
def test_each_package_is_listed_with_its_licence(extra: str) -> None:
    needed = PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]
    for name, licence in installed(needed).items():
        assert name in PACKAGES, f"list {name} in scripts/licences_docs.py"
        # Metadata may name one of several that a package can be had under.
        assert licence is None or licence in (PACKAGES[name].licence, *PACKAGES[name].licence.split(" OR "))


def test_what_is_listed_is_needed() -> None:
    declared = {name for extra in ("", *EXTRAS) for name in requirements(extra)}
    assert {name for name, one in PACKAGES.items() if not one.by} == declared
    assert {one.by for one in PACKAGES.values() if one.by} <= PACKAGES.keys()


@pytest.mark.parametrize("extra", ["", *EXTRAS])
def test_nothing_that_ottla_declares_is_under_a_copyleft_licence(extra: str) -> None:
    assert not [name for name in requirements(extra) if COPYLEFT.search(PACKAGES[name].licence)]


def test_what_is_brought_under_a_copyleft_licence_is_what_the_page_explains() -> None:
    copyleft = {name for name, one in PACKAGES.items() if COPYLEFT.search(one.licence)}
    assert copyleft == {"crc32c"}
    assert PACKAGES["crc32c"].by == "kio"


@pytest.mark.parametrize("licence", ["LGPL-2.1-or-later", "GPL-3.0-only", "MPL-2.0", "AGPL-3.0-or-later"])
def test_copyleft_licences_are_noticed(licence: str) -> None:
    assert COPYLEFT.search(licence)
