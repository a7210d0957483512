"""docs/LICENCES.md: what `pip install ottla` and its extras bring, and under which licences.

A test compares the licences with what the installed packages say, and finds packages that are not listed.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PROJECT = tomllib.loads((Path(__file__).resolve().parent.parent / "pyproject.toml").read_text())["project"]

HEAD = """\
# Licences of the dependencies

Ottla's licence is Apache-2.0 ([LICENSE](../LICENSE)). This page lists all packages that Ottla needs at run
time. `make docs` writes it from `pyproject.toml` and `scripts/licences_docs.py`. A test compares it with what
the installed packages say. The test fails if a package is missing here, or if Ottla itself declares a package
that is under a copyleft licence.

Licences have their SPDX names. "Version" is the range that Ottla declares; for the other packages the package
under "Needed by" declares it. `ottla[all]` is every extra but `gssapi`.
"""

EXCEPTION = """
## crc32c

`crc32c` is under the LGPL. kio declares it for its module `kio.records`, which Ottla never imports. Ottla
runs without `crc32c`; a test shows it: `tests/unit/test_extras.py::test_the_embedded_broker_needs_none`. To
leave it out:

```
pip uninstall crc32c                                            # after the installation
```

With uv, in the `pyproject.toml` of your project:

```
[tool.uv]
override-dependencies = ["crc32c; sys_platform == 'never'"]
```
"""


class Package(NamedTuple):
    """A package's licence; by which package it is needed, where Ottla does not name it."""

    licence: str
    by: str = ""
    note: str = ""


# Of each package that Ottla needs at run time, in any extra.
PACKAGES = {
    "annotated-doc": Package("MIT", "typer"),
    "cffi": Package("MIT-0", "cryptography"),
    "confluent-kafka": Package("Apache-2.0", note="It has librdkafka in it, BSD-2-Clause."),
    "cramjam": Package("MIT"),
    "crc32c": Package("LGPL-2.1-or-later", "kio", "Ottla never imports it: see [below](#crc32c)."),
    "cryptography": Package("Apache-2.0 OR BSD-3-Clause", note="It has OpenSSL in it, Apache-2.0."),
    "decorator": Package("BSD-2-Clause", "gssapi"),
    "fastcrc": Package("MIT"),
    "gssapi": Package("ISC", note="It needs the Kerberos library of the machine, MIT."),
    "greenlet": Package("MIT AND PSF-2.0"),
    "h2": Package("MIT"),
    "hpack": Package("MIT", "h2"),
    "hyperframe": Package("MIT", "h2"),
    "joserfc": Package("BSD-3-Clause"),
    "kio": Package("Apache-2.0"),
    "linkify-it-py": Package("MIT", "textual"),
    "markdown-it-py": Package("MIT", "rich"),
    "mdit-py-plugins": Package("MIT", "textual"),
    "mdurl": Package("MIT", "markdown-it-py"),
    "platformdirs": Package("MIT", "textual"),
    "protobuf": Package("BSD-3-Clause"),
    "pycparser": Package("BSD-3-Clause", "cffi"),
    "pygments": Package("BSD-2-Clause", "rich"),
    "rich": Package("MIT"),
    "shellingham": Package("ISC", "typer"),
    "textual": Package("MIT"),
    "typer": Package("MIT"),
    "typing-extensions": Package("PSF-2.0", "kio"),
    "uvloop": Package("MIT OR Apache-2.0"),
}


def requirements(extra: str = "") -> dict[str, str]:
    """What Ottla declares: packages, and the versions that it takes."""
    listed = PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]
    found = {}
    for one in listed:
        name, versions = re.fullmatch(r"([\w.-]+)(?:\[.*?\])?([^;]*)(?:;.*)?", one).groups()  # type: ignore[union-attr]
        if name != "ottla":
            found[name] = versions.strip()
    return found


def _rows(extra: str) -> Iterator[str]:
    declared = requirements(extra)
    names = set(declared)
    while more := {name for name, one in PACKAGES.items() if one.by in names} - names:
        names |= more
    for name in sorted(names):
        one = PACKAGES[name]
        versions = f"`{declared[name]}`" if name in declared else ""
        by = "Ottla" if name in declared else one.by
        yield f"| {name} | {versions} | {one.licence} | {by} | {one.note} |\n"


def render() -> str:
    """The page."""
    parts = [HEAD]
    extras = [extra for extra in PROJECT["optional-dependencies"] if extra not in ("all", "test")]
    for extra in ["", *extras]:
        title = f"`pip install 'ottla[{extra}]'`, beside that" if extra else "`pip install ottla`"
        parts.append(f"\n## {title}\n\n| Package | Version | Licence | Needed by | |\n")
        parts.append("| --- | --- | --- | --- | --- |\n")
        parts += _rows(extra)
    return "".join([*parts, EXCEPTION])
