"""site_pages.py: gather the pages of the site and have MkDocs build it, in build/site: `make site`.

The pages are README.md and docs/, and what they link to in the repository, all in the places that they have
there: so the same relative links work on the site. Its navigation is that of README's last section, "Where to
read more", whose lists name each page; a page that no list names is in "More".
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import links

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / "build" / "site"
PAGES = SITE / "pages"
FIRST = "README.md"
CONTENTS = "Where to read more"
# Where a page's own heading says too much for the navigation.
TITLES = {"README.md": "Home", "docs/decisions/README.md": "Decisions"}


def gathered(root: Path) -> list[str]:
    """The first page, docs/, and all files that pages link to, one after the other."""
    found: dict[str, None] = {FIRST: None}
    for path in sorted((root / "docs").rglob("*")):
        if path.is_file():
            found[str(path.relative_to(root))] = None
    looked_at: set[str] = set()
    while left := [name for name in found if name not in looked_at]:
        for name in left:
            looked_at.add(name)
            if name.endswith(".md"):
                for link in links.links((root / name).read_text()):
                    target = (root / name).parent.joinpath(link.path).resolve()
                    if target.is_file():
                        found[str(target.relative_to(root.resolve()))] = None
    return list(found)


def title(root: Path, name: str) -> str:
    """What the navigation calls a page: the words of its first heading."""
    heading = re.search(r"^# (.+)$", (root / name).read_text(), re.MULTILINE)
    return TITLES.get(name) or (heading[1].replace("`", "") if heading else name)


def navigation(root: Path, found: list[str]) -> list[Any]:
    """MkDocs' ``nav``: the lists of README's last section, and what is in none of them."""
    pages = [name for name in found if name.endswith(".md")]
    _, _, contents = (root / FIRST).read_text().partition(f"## {CONTENTS}\n")
    made: list[Any] = [{TITLES[FIRST]: FIRST}]
    placed = {FIRST}
    section: list[Any] = []
    for line in contents.splitlines():
        if head := re.fullmatch(r"(\w[\w ,]+):", line):
            section = []
            made.append({head[1]: section})
        if line.startswith("- "):
            for link in links.links(line):
                name = f"{link.path}README.md" if link.path.endswith("/") else link.path
                if name in pages and name not in placed:
                    placed.add(name)
                    section.append(_entry(root, name, pages, placed))
    more = [{title(root, name): name} for name in pages if name not in placed]
    return [*made, {"More": more}] if more else made


def _entry(root: Path, name: str, pages: list[str], placed: set[str]) -> dict[str, Any]:
    """A page, with those of its folder below it where it is the folder's README."""
    folder, _, file = name.rpartition("/")
    if file != "README.md" or not folder:
        return {title(root, name): name}
    inside = [one for one in pages if one.startswith(f"{folder}/") and one != name]
    placed.update(inside)
    return {title(root, name): [name, *({title(root, one): one} for one in sorted(inside))]}


def main(arguments: list[str]) -> int:
    shutil.rmtree(SITE, ignore_errors=True)
    found = gathered(ROOT)
    for name in found:
        (PAGES / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, PAGES / name)
    import yaml

    config = (ROOT / "mkdocs.yml").read_text().replace("build/site/", "")
    nav = yaml.safe_dump({"nav": navigation(ROOT, found)}, allow_unicode=True, sort_keys=False)
    (SITE / "mkdocs.yml").write_text(f"{config}\n{nav}")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--config-file", SITE / "mkdocs.yml"]
    ended = subprocess.run([*command, *arguments], check=False).returncode
    if ended == 0:
        html = (SITE / "html").relative_to(ROOT)
        print(f"the site is in {html}; its search needs a server: python3 -m http.server --directory {html}")
    return ended


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
