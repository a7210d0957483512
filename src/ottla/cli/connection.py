"""How a command comes to a cluster: from its options, the environment and a profile, in this order.

Commands declare --bootstrap and --property (``ottla.cli.options``). ``add_options`` gives them
--command-config and --profile as well, and ``settle`` puts what all of them say into these two.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from ottla.cli import output
from ottla.cli.client_properties import BY_TOKEN, FILE_VARIABLE, in_librdkafkas_words, of_file
from ottla.cli.errors import CliError, ExitCode
from ottla.cli.options import Properties, parse_pairs, takes
from ottla.cli.profiles import BOOTSTRAP, OPTIONS, Chosen, chosen, is_open_to_others

# The key in a context's meta of the profile that said where to connect.
PROFILE = "ottla.profile"

CommandConfig = Annotated[
    str | None,
    typer.Option(
        "--command-config",
        metavar="FILE",
        show_default="$OTTLA_CLIENT_PROPERTIES, or none",
        help="A file of client properties, Kafka's or librdkafka's, as Kafka's own tools take it.",
    ),
]
ProfileName = Annotated[
    str | None,
    typer.Option(
        "--profile",
        metavar="NAME",
        show_default="$OTTLA_PROFILE, or as 'ottla profile use' says",
        help="Connect as this profile says, whatever the environment says: see 'ottla profile'.",
    ),
]


def _property(property: list[str] | None, **_: str | None) -> list[str] | None:
    # `settle` has put all of them into this one.
    return property


_TAKES = takes(
    "property",
    {"property": (Properties, None), "command_config": (CommandConfig, None), "profile": (ProfileName, None)},
    _property,
)


def add_options(command: Any) -> None:
    """Give a command that Typer has registered, and that talks to a cluster, the options of this module."""
    names = inspect.signature(command.callback).parameters
    if "property" in names and "profile" not in names:
        command.callback = _TAKES(command.callback)


def named(words: Sequence[str]) -> str | None:
    """What --profile says in the words behind a command."""
    found = None
    for position, word in enumerate(words):
        if word == "--":
            break
        if word.startswith("--profile="):
            found = word.partition("=")[2]
        elif word == "--profile":
            found = "".join(words[position + 1 : position + 2])
    return found


def profile_of(ctx: Any, named: str | None) -> Chosen | None:
    """The profile to go by, after its defaults have become those of the command."""
    found = chosen(named)
    if found is not None:
        if is_open_to_others(found.profile):
            output.warn(
                f"profile {found.profile.name!r} has a secret, and other users of this machine can read "
                f"{found.profile.path}: chmod 600 it"
            )
        ctx.default_map = {
            name.replace("-", "_"): value for name, value in found.profile.defaults.items() if name in OPTIONS
        }
    return found


def settle(ctx: Any, profile: Chosen | None) -> None:
    """Put into ``bootstrap`` and ``property`` of a parsed command what they are, whatever says so.

    The later of these wins: the current profile, the file that OTTLA_CLIENT_PROPERTIES names, then
    --command-config, then -X. A profile that --profile names comes in place of the first two, and of
    OTTLA_BOOTSTRAP.
    """
    layers = [] if profile is None else [dict(profile.profile.client)]
    by_option = bool(profile and profile.named)
    if not by_option and (file := os.environ.get(FILE_VARIABLE)):
        layers.append(of_file(file, FILE_VARIABLE))
    given = {}
    if file := ctx.params.get("command_config"):
        given = in_librdkafkas_words(of_file(file, "--command-config"))
    for pair in ctx.params.get("property") or ():
        # Of two names for one thing the later counts, so each is put into librdkafka's words by itself.
        one = of_file(pair[1:], "-X") if pair.startswith("@") else parse_pairs("--property", [pair])
        given |= in_librdkafkas_words(one)
    merged: dict[str, str] = {}
    for layer in layers:
        merged |= in_librdkafkas_words(layer)
    if "sasl.username" in given and BY_TOKEN not in given:
        merged.pop(BY_TOKEN, None)
    below, above = merged.pop(BOOTSTRAP, None), given.pop(BOOTSTRAP, None)
    ctx.params["property"] = [f"{name}={value}" for name, value in (merged | given).items()]
    source = getattr(ctx.get_parameter_source("bootstrap"), "name", "")
    if source == "COMMANDLINE":
        return
    if above is not None:
        ctx.params["bootstrap"] = above
    elif below is not None and (by_option or source != "ENVIRONMENT"):
        ctx.params["bootstrap"] = below
        if profile is not None and below == profile.profile.bootstrap:
            ctx.meta[PROFILE] = profile.profile.name


def told(ctx: Any, error: CliError) -> CliError:
    """An error, with the profile that said where to connect: whoever chose it may not have it in mind."""
    name = ctx.meta.get(PROFILE)
    if name is None or error.code is not ExitCode.UNREACHABLE:
        return error
    return CliError(f"{str(error).rstrip('.')} (profile {name!r})", ExitCode.UNREACHABLE)
