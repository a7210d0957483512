"""The public API is what docs/API.md says: the lists, and the fields of JSON documents."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from json_fields import FILE, Field, differences, known, parts

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import api_lists  # noqa: E402 - of scripts/
import cli_docs  # noqa: E402


@pytest.mark.parametrize("name", api_lists.LISTS)
def test_the_list_is_what_the_code_says(name: str) -> None:
    listed = (ROOT / "docs" / "api" / f"{name}.txt").read_text().splitlines()
    found = api_lists.text(name).splitlines()
    gone, new = sorted(set(listed) - set(found)), sorted(set(found) - set(listed))
    assert not gone, f"deprecate these before they go (docs/API.md), then run `make docs`: {gone}"
    assert not new, f"run `make docs` and commit: {new}"
    assert len(set(found)) == len(found)


def test_each_command_with_json_has_its_fields_listed() -> None:
    commands = {
        path
        for path, function in cli_docs.commands(cli_docs.app_of())
        if any("--json" in one.names for one in cli_docs.parameters(function))
    }
    missing, gone = commands - known().keys(), known().keys() - commands
    assert not missing, (
        f"add the fields of what these print to docs/api/json.txt, then `make docs`: {missing}"
    )
    assert not gone, f"deprecate these before they go (docs/API.md): {gone}"


def test_the_list_of_fields_is_in_order() -> None:
    lines = FILE.read_text().splitlines()
    assert lines == sorted(set(lines))


# ------------------------------------------------------------ the comparison


def field(*paths: str) -> Field:
    made = Field()
    for path in paths:
        made.add(parts(path.rstrip("?")), is_optional=path.endswith("?"))
    return made


@pytest.mark.parametrize(
    ("document", "paths", "found"),
    [
        ({"a": 1}, ["a"], []),
        ({"a": None}, ["a", "a.b"], []),
        ({}, ["a?"], []),
        ({}, ["a"], [".a: in the list, and not in the document"]),
        ({"a": 1, "b": 2}, ["a"], ["b: not in the list"]),
        ([{"a": 1}, {}], ["[].a"], ["[].a: in the list, and not in the document"]),
        ([{"a": [{"b": 1}]}], ["[].a", "[].a[].b"], []),
        ([{"a": [{"c": 1}]}], ["[].a", "[].a[].b?"], ["[].a[].c: not in the list"]),
        ([], ["[].a"], []),
        ([{"a": 1}], ["a?"], ["[]: not in the list"]),
        ({"a": {"x.y": 1, "z": 2}}, ["a", "a.*"], []),
        ({"a": {"b": {"c": [1]}}}, ["a", "a.**"], []),
        ([1, 2], ["**"], []),
        ({"a": [1, 2]}, ["a"], []),
    ],
)
def test_a_document_is_compared(document: Any, paths: list[str], found: list[str]) -> None:
    assert [one.removeprefix(".") for one in differences(document, field(*paths))] == [
        one.removeprefix(".") for one in found
    ]
