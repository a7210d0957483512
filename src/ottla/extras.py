"""The package's extras, and the one line that names the extra that something needs.

``pip install ottla`` brings what an embedded broker needs. Whatever imports a package of an extra does so
where it is used, within ``needed``: if the package is not installed, the error says which extra to install.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Final

# Each extra, and the modules of its packages. pyproject.toml says which packages; a test compares the two.
EXTRAS: Final[Mapping[str, tuple[str, ...]]] = {
    "cli": ("typer", "rich", "confluent_kafka"),
    "cluster": ("h2", "google.protobuf"),
    "tls": ("cryptography",),
    "oauthbearer": ("joserfc",),
    "gssapi": ("gssapi",),
    "top": ("textual",),
    "threads": ("greenlet",),
}


class MissingExtra(ImportError):
    """A package of one of Ottla's extras is not installed. The text is one line, with the command to type."""


def extra_of(module: str | None) -> str | None:
    """The extra that has a module; None where no extra has it."""
    for extra, modules in EXTRAS.items():
        # The first part is enough of google.protobuf: Python names the part that is not there.
        if module is not None and any(f"{module}.".startswith(f"{one.split('.')[0]}.") for one in modules):
            return extra
    return None


def line(what: str, extra: str) -> str:
    """What is said where ``what`` needs an extra that is not installed."""
    return f"{what} needs the extra \"{extra}\": pip install 'ottla[{extra}]'"


def require(what: str, extra: str) -> None:
    """MissingExtra with the line for ``what``, if a module of ``extra`` is not installed. Imports nothing
    but the packages that a module is in."""
    for module in EXTRAS[extra]:
        with needed(what):
            if find_spec(module) is None:
                raise ModuleNotFoundError(name=module)


@contextmanager
def needed(what: str, failure: type[Exception] = MissingExtra) -> Iterator[None]:
    """Within: if a package of an extra is not installed, raise ``failure`` with the line for ``what``.

    Other modules that cannot be found stay a ModuleNotFoundError.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        extra = extra_of(error.name)
        if extra is None:
            raise
        raise failure(line(what, extra)) from None
