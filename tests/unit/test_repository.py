"""Files for those who take part: templates, policies, settings; and the version that several files repeat."""

from __future__ import annotations

import configparser
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from ottla import __version__

ROOT = Path(__file__).parents[2]
# Files that repeat the version, as CONTRIBUTING.md lists them.
VERSIONED = ("deploy/Dockerfile", "deploy/kubernetes/base/kustomization.yaml", "deploy/README.md")


def section(page: str, title: str) -> str:
    return (ROOT / page).read_text().split(f"\n## {title}\n")[1].split("\n## ")[0]


@pytest.mark.parametrize("name", VERSIONED)
def test_files_repeat_the_version_and_the_page_on_releases_names_them(name: str) -> None:
    assert __version__ in (ROOT / name).read_text()
    assert f"`{name}`" in section("CONTRIBUTING.md", "Releases")


def test_the_policy_supports_this_version() -> None:
    major, minor = __version__.split(".")[:2]
    assert f"| {major}.{minor}.x and the main branch | yes |" in section("SECURITY.md", "Supported versions")


def test_the_changelog_is_in_order() -> None:
    """Versions with their dates, newest first; what is not released stands above them."""
    titles = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    released = [re.fullmatch(r"(\d+)\.(\d+)\.(\d+) \D*\d{4}-\d\d-\d\d\D*", title) for title in titles]
    if released[0] is None:
        assert "unreleased" in titles[0].lower()
        released = released[1:]
    versions = [tuple(map(int, one.groups())) for one in released if one is not None]
    assert len(versions) == len(released)
    assert versions == sorted(versions, reverse=True)


@pytest.mark.parametrize("name", ["bug", "wish"])
def test_forms_for_issues_are_ones(name: str) -> None:
    form: Any = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / f"{name}.yml").read_text())
    assert form["name"] and form["description"]
    fields = [one for one in form["body"] if one["type"] != "markdown"]
    assert len({one["id"] for one in fields}) == len(fields) >= 3
    for one in fields:
        assert one["type"] in ("input", "textarea", "dropdown")
        assert one["attributes"]["label"]
    assert any(one.get("validations", {}).get("required") for one in fields)


def test_a_change_is_asked_for_what_the_habits_ask() -> None:
    text = (ROOT / ".github" / "PULL_REQUEST_TEMPLATE.md").read_text()
    for word in ("make check", "CHANGELOG.md", "docs/COMPATIBILITY.md", "test fails without"):
        assert word in text


def test_the_hook_before_a_commit_is_the_fast_check() -> None:
    given = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    ((hook,),) = (repo["hooks"] for repo in given["repos"])
    assert given["repos"][0]["repo"] == "local"
    assert (hook["entry"], hook["language"], hook["pass_filenames"]) == ("make check", "system", False)
    assert re.search(r"^check:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_editors_are_told_what_the_checks_want() -> None:
    settings = configparser.ConfigParser()
    settings.read_string("[top]\n" + (ROOT / ".editorconfig").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert int(settings["*"]["max_line_length"]) == project["tool"]["ruff"]["line-length"]
    assert settings["Makefile"]["indent_style"] == "tab"
