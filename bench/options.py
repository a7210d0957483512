"""What the programs that measure brokers have in common on their command lines."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import addresses


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def argument(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """A parser of one argument, whose ValueError says what is wrong with it."""

    def parsed(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parsed


def named_tree(text: str) -> tuple[str, Path]:
    """NAME=PATH, or a path whose last part is the name. ValueError where no Ottla is there."""
    name, equals, path = text.rpartition("=")
    folder = Path(path).expanduser().resolve()
    if not (folder / "src" / "ottla").is_dir():
        raise ValueError(f"{path}: no tree of Ottla, which would have src/ottla")
    return (name if equals else folder.name), folder


def shown(program: str, arguments: Sequence[str]) -> str:
    """A command as a page shows it: without folders of somebody's machine."""
    words = [re.sub(r"(^|=)(?:~|\.\.)?/\S*?([^/]+)/?$", r"\1…/\2", word) for word in arguments]
    # To `shlex` an ellipsis is something to quote.
    plain = re.compile(r"[\w.,:=/…+-]+")
    return " ".join([program, *(word if plain.fullmatch(word) else shlex.quote(word) for word in words)])


def add_brokers(made: argparse.ArgumentParser, form: str, about: str) -> None:
    """--tree and --peer; ``form`` and ``about`` say what may be given as a peer."""
    made.add_argument(
        "--tree",
        type=argument(named_tree),
        action="append",
        default=[],
        metavar="[NAME=]PATH",
        help="an Ottla of another tree, such as an older version; repeatable",
    )
    made.add_argument(
        "--peer",
        type=argument(addresses.parse),
        action="append",
        default=[],
        metavar=form,
        help=f"{about}; repeatable",
    )


def add_results(made: argparse.ArgumentParser, results: Path, page: Path) -> None:
    """What becomes of the results, by default: kept in ``results``, and shown on ``page``."""
    made.add_argument("--note", default="", metavar="TEXT", help="what the page is to say of this run")
    made.add_argument("--json", action="store_true", help="print the results as JSON")
    made.add_argument("--draw", action="store_true", help="measure nothing, write the page of the results")
    made.add_argument("--no-page", action="store_true", help="write the results alone")
    made.add_argument("--results", type=Path, default=results, help="the file of results")
    made.add_argument("--page", type=Path, default=page, help="where to write the page")


def results_of(options: argparse.Namespace, measure: Callable[[], Any]) -> Any:
    """What an earlier run has kept, for --draw; otherwise what is measured now, and kept."""
    if options.draw:
        return json.loads(options.results.read_text())
    results = measure()
    options.results.parent.mkdir(parents=True, exist_ok=True)
    options.results.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    say(f"wrote {options.results}")
    return results
