"""`ottla profile`: ways to connect to clusters, each under a name."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path
from typing import Annotated

import typer

from ottla.cli import output, profiles
from ottla.cli.client import parse_bootstrap
from ottla.cli.client_properties import RPK, in_librdkafkas_words, of_file
from ottla.cli.errors import CliError, ExitCode
from ottla.cli.examples import examples
from ottla.cli.options import Json, Properties, parse_pairs
from ottla.cli.values import shown

app = typer.Typer(
    no_args_is_help=True, help="Keep ways to connect to clusters, each under a name, and choose one of them."
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The profile's name.")]
Optional = Annotated[
    str | None,
    typer.Argument(metavar="NAME", show_default="the current profile", help="The profile's name."),
]


@app.command()
@examples(
    ("ottla profile create dev --bootstrap 127.0.0.1:9092 --use", "Create a profile, and use it."),
    (
        "ottla profile create prod -b broker.example.org:9093 --command-config prod.properties",
        "Take TLS and the login from a file, so that no password is on the command line.",
    ),
    (
        "ottla profile create slow -b 10.0.0.7:9092 --default compression=zstd --default acks=all",
        "Set defaults of options, too.",
    ),
)
def create(
    name: Name,
    servers: Annotated[
        str | None,
        typer.Option(
            "--bootstrap",
            "-b",
            metavar="HOST:PORT",
            show_default="bootstrap.servers of the properties",
            help="The broker to ask first; several with commas.",
        ),
    ] = None,
    given: Properties = None,
    command_config: Annotated[
        str | None,
        typer.Option("--command-config", metavar="FILE", help="A file of client properties, to be copied."),
    ] = None,
    default: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OPTION=VALUE",
            help=f"The default of an option of commands: {', '.join(profiles.OPTIONS)}. Repeatable.",
        ),
    ] = None,
    use: Annotated[bool, typer.Option("--use", help="Use it from now on.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Replace a profile of this name.")] = False,
) -> None:
    """Create a profile: where a cluster is, and how to log in there.

    The profile is a file of client properties in $XDG_CONFIG_HOME/ottla/profiles (~/.config/ottla/profiles)
    that only its owner can read. An option and the environment beat a profile; --profile beats the
    environment.
    """
    profiles.check_name(name)
    if not replace and profiles.path_of(name).exists():
        raise CliError(f"profile {name!r} exists already: give --replace, or another name", ExitCode.EXISTS)
    given_all = of_file(command_config, "--command-config") if command_config else {}
    for pair in given or ():
        given_all |= of_file(pair[1:], "-X") if pair.startswith("@") else parse_pairs("--property", [pair])
    # rpk's names are none that Kafka's own tools take.
    properties = {RPK.get(one, one): value for one, value in given_all.items()}
    if servers is not None:
        properties[profiles.BOOTSTRAP] = servers
    for option, value in parse_pairs("--default", default).items():
        properties[profiles.OPTION + option.removeprefix("--")] = value
    _check(properties)
    path = profiles.write(name, properties)
    output.say(f"profile {name}: {path}")
    if use:
        profiles.use(name)
        output.say(f"commands use profile {name} from now on")


@app.command(name="list")
@examples(("ottla profile list", "List the profiles."), ("ottla profile list --json", "List them as JSON."))
def list_(json: Json = False) -> None:
    """List the profiles, and which one is current."""
    current, _ = profiles.current()
    documents = []
    for name in profiles.names():
        try:
            bootstrap, trouble = profiles.read(name).bootstrap, None
        except CliError as error:
            bootstrap, trouble = None, str(error)
            output.warn(trouble)
        documents.append({"profile": name, "bootstrap": bootstrap, "current": name == current})
    rows = [(one["profile"], one["bootstrap"], "yes" if one["current"] else "") for one in documents]
    none = "no profiles; create one with 'ottla profile create NAME --bootstrap HOST:PORT'"
    output.listing(documents, ("profile", "bootstrap", "current"), rows, json, none=none)


@app.command()
@examples(
    ("ottla profile show", "Show the current profile."),
    ("ottla profile show dev --json", "Show a profile as JSON."),
)
def show(name: Optional = None, json: Json = False) -> None:
    """Show what is in a profile. Passwords and keys are never shown."""
    found = profiles.read(name or profiles.current()[0])
    properties = profiles.shown_properties(found)
    if json:
        output.print_json({"profile": found.name, "path": str(found.path), "properties": properties})
        return
    output.say(f"{found.name}: {found.path}")
    output.table(("property", "value"), list(properties.items()))


@app.command()
@examples(
    ("ottla profile use dev", "Have commands go by a profile from now on."),
    ("ottla profile use default", "Have commands go by no profile, if none is called 'default'."),
)
def use(name: Name) -> None:
    """Choose the profile that commands go by. --profile and OTTLA_PROFILE choose another for one command."""
    profiles.use(name)
    output.say(f"commands use profile {name} from now on")
    if (said := os.environ.get(profiles.VARIABLE)) and said != name:
        output.warn(f"{profiles.VARIABLE} is {shown(said)} here, and comes first")


@app.command()
@examples(
    ("ottla profile current", "Print the name of the current profile."),
    ("ottla profile current --json", "Print what says so, too."),
)
def current(json: Json = False) -> None:
    """Print the name of the profile that commands go by."""
    name, why = profiles.current()
    if json:
        output.print_json({"profile": name, "set_by": None if why == "nothing else" else why})
    else:
        output.say(name)
        if name == profiles.DEFAULT and name not in profiles.names():
            output.warn(f"no profile is called {name!r}: commands use no profile")


@app.command()
@examples(
    ("ottla profile edit dev", "Open a profile in an editor."),
    ("ottla profile edit", "Open the current profile in an editor."),
)
def edit(name: Optional = None) -> None:
    """Open a profile in $VISUAL or $EDITOR. The change counts if it can be read; else the profile stays."""
    name = name or profiles.current()[0]
    data = profiles.read_bytes(name)
    path = profiles.path_of(name)
    copy = path.with_name(f".edit-{path.name}")
    profiles.write_bytes(copy, data)
    try:
        _run_editor(copy, name)
    except CliError:
        copy.unlink(missing_ok=True)
        raise
    try:
        _check(of_file(str(copy), f"profile {name!r}"))
    except CliError as error:
        raise CliError(f"{error}; the profile is as it was, and your text is in {copy}") from None
    # An editor may have put another file in its place.
    os.chmod(copy, 0o600)
    os.replace(copy, path)
    output.say(f"profile {name}: {path}")


def _run_editor(file: Path, name: str) -> None:
    """CliError where there is no editor, or it does not end well."""
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    try:
        words = shlex.split(editor)
        if not words:
            raise ValueError("it names no program")
        code = subprocess.run([*words, str(file)], check=False).returncode
    except OSError as error:
        raise CliError(f"{editor}: {(error.strerror or str(error)).lower()}; set EDITOR") from None
    except ValueError as error:
        raise CliError(f"the editor {shown(editor)}: {error}; set EDITOR") from None
    if code:
        raise CliError(f"{editor} ended with code {code}: profile {name!r} is as it was")


@app.command()
@examples(
    ("ottla profile delete slow", "Delete a profile."),
    ("ottla profile delete dev prod", "Delete two profiles."),
)
def delete(
    name: Annotated[list[str], typer.Argument(metavar="NAME", help="The profiles' names.")],
) -> None:
    """Delete profiles. If the current one is among them, commands go by no profile."""
    for one in name:
        profiles.delete(one)
        output.say(f"{one}: deleted")


def _check(properties: dict[str, str]) -> None:
    """CliError (usage) where a profile with these properties could not be used."""
    client = {name: value for name, value in properties.items() if not name.startswith(profiles.OPTION)}
    in_librdkafkas_words(client)
    if (servers := client.get(profiles.BOOTSTRAP)) is not None:
        parse_bootstrap(servers)
    for name in properties.keys() - client.keys():
        if (option := name.removeprefix(profiles.OPTION)) not in profiles.OPTIONS:
            known = ", ".join(profiles.OPTIONS)
            raise CliError(
                f"--default {shown(option)}: a profile has defaults of these options: {known}",
                ExitCode.USAGE,
            )
