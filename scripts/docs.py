"""docs.py [--check]: write the pages of docs/ that are generated from the code and from what was measured,
and the dashboard; or fail if one is stale."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import api_docs
import benchmark_docs
import cli_docs
import compatibility_docs
import config_docs
import dashboard_docs
import decisions_docs
import drawings
import licences_docs
import metrics_docs
import security_docs

DOCS = Path(__file__).resolve().parent.parent / "docs"

PAGES: dict[str, Callable[[], str]] = {
    "API.md": api_docs.render,
    "CLI.md": cli_docs.render,
    "COMPATIBILITY.md": compatibility_docs.render,
    "CONFIG.md": config_docs.render,
    "LICENCES.md": licences_docs.render,
    "METRICS.md": metrics_docs.render,
    "SECURITY.md": security_docs.render,
    "decisions/README.md": decisions_docs.render,
    **drawings.PICTURES,
    "../deploy/monitoring/ottla-dashboard.json": dashboard_docs.render,
}


def main(arguments: list[str]) -> int:
    """Exit code 1 when asked to check and a page is not what the code says."""
    stale = []
    texts = {name: render() for name, render in PAGES.items()} | benchmark_docs.pages() | api_docs.pages()
    for name, text in texts.items():
        page = (DOCS / name).resolve()
        if page.exists() and page.read_text() == text:
            continue
        if "--check" in arguments:
            stale.append(name)
        else:
            page.parent.mkdir(parents=True, exist_ok=True)
            page.write_text(text)
            print(f"wrote {page.relative_to(DOCS.parent)}")
    if stale:
        print(f"stale in docs/: {', '.join(stale)}; run `make docs` and commit", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
