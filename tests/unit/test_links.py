"""What scripts/links.py notices about the links of Markdown files."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.links import Link, anchors, broken, links, slug

PAGE = """# A page

See [the other](docs/b.md#two-words), [here](#a-page "a title"), ![a picture](c.svg) and <img src="c.svg">.
[far](https://example.org/x#y) [post](mailto:a@b.c) `[code](no.md)` [dir](docs/)

```sh
# [a comment](no.md)
```

[named]: docs/b.md
"""


def test_relative_links_are_found_and_code_is_not_looked_at() -> None:
    assert list(links(PAGE)) == [
        Link(3, "docs/b.md", "two-words"),
        Link(3, "", "a-page"),
        Link(3, "c.svg", ""),
        Link(3, "c.svg", ""),
        Link(4, "docs/", ""),
        Link(10, "docs/b.md", ""),
    ]


@pytest.mark.parametrize(
    ("heading", "anchor"),
    [
        ("Two words", "two-words"),
        ("`ottla serve`, and *more*: a [link](x.md)", "ottla-serve-and-more-a-link"),
        ("Ins & outs (KIP-98)", "ins--outs-kip-98"),
        ("snake_case of __dunder__", "snake_case-of-dunder"),
        ("Größe", "größe"),
    ],
)
def test_anchors_are_those_of_github(heading: str, anchor: str) -> None:
    assert slug(heading) == anchor


def test_headings_of_the_same_words_are_counted_and_elements_have_names() -> None:
    assert anchors('# One\n## One\n<a id="mine"></a>\n```\n# no heading\n```\n') == {"one", "one-1", "mine"}


def test_what_leads_nowhere_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    page, other = tmp_path / "README.md", tmp_path / "docs" / "b.md"
    page.write_text(PAGE)
    other.write_text("# Two words\n[up](../README.md#a-page)\n")
    (tmp_path / "c.svg").touch()
    assert broken(tmp_path, [page, other]) == []
    other.write_text("# Two\n[up](../README.md#b-page) [out](../../x.md)\n[gone](c.md)\n")
    assert broken(tmp_path, [page, other]) == [
        "README.md:3: docs/b.md#two-words: there is no such heading",
        "docs/b.md:2: ../README.md#b-page: there is no such heading",
        "docs/b.md:2: ../../x.md leads out of the repository",
        "docs/b.md:3: c.md: there is no such file",
    ]
