"""The recording of README's first commands (scripts/recording.py): what it types, and how it is drawn."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

from scripts import recording
from scripts.recording import Shown

ROOT = Path(__file__).parents[2]


def test_what_is_typed_is_what_the_readme_says_and_what_the_picture_shows() -> None:
    page = (ROOT / "README.md").read_text()
    typed = [recording.SERVER[0], *(typed for typed, _ in recording.COMMANDS)]
    shown = texts(recording.PICTURE.read_text())
    for command in typed:
        assert f"\n{command}\n" in page
        assert command in shown
    assert f"]({recording.PICTURE.relative_to(ROOT)})" in page


def texts(svg: str) -> list[str]:
    root = ElementTree.fromstring(svg)
    return ["".join(one.itertext()) for one in root.iter("{http://www.w3.org/2000/svg}text")]


def test_a_terminal_shows_what_was_written_last_and_no_names_of_this_machine(tmp_path: Path) -> None:
    said = f"10 %\r100 %\r\n\x1b[?25hat {tmp_path}/data\r\n\x1b[32mon\x1b[0m 127.0.0.1:4711\r\n".encode()
    assert [line.words for line in recording.lines(said, tmp_path, 4711)] == [
        "100 %",
        "at ~/data",
        "\x1b[32mon\x1b[0m 127.0.0.1:9092",
    ]


def test_colours_are_kept_and_long_lines_are_cut() -> None:
    found = list(recording.pieces("\x1b[1;31mred\x1b[0m & <plain>"))
    assert [(words, bold) for words, _, bold in found] == [("red", True), (" & <plain>", False)]
    assert found[0][1] != found[1][1] == recording.INK
    assert len("".join(words for words, _, _ in recording.pieces("x" * 500))) == recording.COLUMNS


def test_a_picture_shows_each_line_once_and_plays_without_a_script() -> None:
    svg = recording.draw(
        [Shown("a & b", True), Shown("<c>", False)], [Shown("d", True), Shown("", False), Shown("e", False)]
    )
    assert [text for text in texts(svg) if text != "$"] == [
        "the broker", "a & b", "<c>", "another terminal", "d", "", "e",
    ]  # fmt: skip
    assert "<script" not in svg and "http" not in svg.replace("http://www.w3.org/2000/svg", "")
    assert svg.count("@keyframes") == 7
