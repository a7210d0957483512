"""The Typer app of all commands, and how it ends: an exit code, and errors in one line."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from typing import Annotated, Any, NamedTuple

import typer

from ottla.cli import aliases, command_line, output, usage
from ottla.cli import serve as serve_command
from ottla.cli.errors import CliError, ExitCode
from ottla.cli.examples import examples
from ottla.cli.options import whole_number
from ottla.cli.values import shown
from ottla.text import is_text

# Click's exceptions, by way of the one that Typer exports: it carries its own Click in newer releases.
UsageError: Any = typer.BadParameter.__mro__[1]
ClickException: Any = typer.BadParameter.__mro__[2]

DEFAULTS = serve_command.Serve()


def processes_of(value: Any) -> int | str:
    """What --processes says. Typer's own reading would take other numbers, too."""
    number = serve_command.processes_of(str(value))
    if number is None:
        raise typer.BadParameter(
            f"{shown(str(value))} is neither 'auto' nor a number from 1 to {serve_command.PROCESSES_MAX}."
        )
    return number


def _version(asked: bool) -> None:
    if asked:
        from ottla import __version__, implementation

        output.say(f"ottla {__version__} ({implementation.name()})")
        raise typer.Exit


@examples(
    ("ottla serve", "Run a broker on this machine."),
    ("echo hello | ottla produce orders", "Send a message to a topic."),
    ("ottla consume orders --follow", "Print the messages of a topic as they come."),
)
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Kafka's protocol, semantics and log format, in Python: a broker, and the tools to work with any."""


@examples(
    ("ottla serve", "Run a broker on 127.0.0.1:9092 with its data in ./data."),
    (
        "ottla serve --data /srv/ottla --listen 0.0.0.0:9092 --advertise broker.example.org:9092",
        "Run a broker for clients on other machines.",
    ),
    (
        "ottla serve --config server.properties --set log.retention.hours=24",
        "Take the configuration from a file, and one setting from here.",
    ),
)
def serve(
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            show_default="log.dirs of --config, or ./data",
            help="The folder that holds the broker's data.",
        ),
    ] = None,
    listen: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            show_default="listeners of --config, or 127.0.0.1:9092",
            help="The address to listen on. Port 0 takes a free one.",
        ),
    ] = None,
    node_id: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            parser=whole_number(0),
            show_default="node.id of --config, or 1",
            help="This broker's id. In a cluster each node has another one.",
        ),
    ] = None,
    advertise: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            show_default="the address of --listen; if that is 0.0.0.0, this machine's name",
            help="The address that clients connect to. Clients of a container do not know its name.",
        ),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Be a node of a cluster: the etcd that its nodes share, etcd://HOST:PORT,HOST:PORT,… with "
            "all of its members, or etcds:// for TLS.",
        ),
    ] = None,
    cluster_name: Annotated[
        str | None,
        typer.Option(
            "--cluster",
            metavar="NAME",
            show_default="ottla",
            help="The cluster's name in the store, which may hold several.",
        ),
    ] = None,
    rack: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            show_default="broker.rack of --config, or none",
            help="The rack or zone that this broker is in. A partition's replicas are spread over racks.",
        ),
    ] = None,
    replace: Annotated[
        bool,
        typer.Option(
            "--replace",
            help="Start with an empty --data as a node that the cluster knows, because its disk is gone: it "
            "copies all it had from the others. Without this an empty folder is refused then. No effect on "
            "a folder that has data.",
        ),
    ] = False,
    processes: Annotated[
        str,
        typer.Option(
            metavar="N|auto",
            parser=processes_of,
            help="Run so many nodes, one in each process, to use as many processors; auto: as many as there "
            "are. Their ids are consecutive, from --node-id on. Clients connect to --listen, whose port all "
            "nodes share, and find the nodes at the ports after it. Data lies in one folder.",
        ),
    ] = "1",
    metrics: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            show_default="metrics.listener of --config, or none",
            help="Serve metrics for Prometheus, /healthz and /readyz at this address, by HTTP. All who can "
            "connect may read them. With --processes each node has a port of its own, from this one on.",
        ),
    ] = None,
    slow_request_ms: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            parser=whole_number(0),
            show_default="slow.request.ms of --config, or 0, which logs none",
            help="Log requests that keep clients waiting for so long without having been asked to. See "
            "docs/TRACE.md.",
        ),
    ] = None,
    control: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Open a control port for tests there, by HTTP and JSON: faults on demand, and what is in "
            "the broker. Whoever reaches it may do everything, so it is for this machine only unless "
            "OTTLA_CONTROL_TOKEN holds a token that programs must send. See docs/CONTROL.md.",
        ),
    ] = None,
    config_file: Annotated[
        str | None,
        typer.Option("--config", metavar="FILE", help="A server.properties file, with Kafka's names."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="A broker configuration; wins over the file. Repeatable."
        ),
    ] = None,
    log_format: Annotated[
        str,
        typer.Option(
            metavar="|".join(serve_command.LOG_FORMATS),
            help="The form of the log on stderr, and of the ready line.",
        ),
    ] = DEFAULTS.log_format,
    log_level: Annotated[
        str, typer.Option(metavar="|".join(serve_command.LOG_LEVELS), help="The least that is logged.")
    ] = DEFAULTS.log_level,
) -> int:
    """Run a broker: one by itself, or with --store a node of a cluster.

    Prints 'ottla: listening on HOST:PORT' when it is ready; with --log-format json, a JSON object that has
    it in 'listening'. SIGTERM or Ctrl-C stops it cleanly; in a cluster it hands over what it leads first.
    'ottla cluster up' starts a whole cluster on this machine, to try.
    """
    return serve_command.run(
        serve_command.Serve(
            data=data,
            listen=listen,
            node_id=node_id,
            advertise=advertise,
            store=store,
            cluster=cluster_name,
            rack=rack,
            replace=replace,
            processes=processes,
            metrics=metrics,
            slow_request_ms=slow_request_ms,
            control=control,
            config_file=config_file,
            overrides=serve_command.parse_overrides(set_ or ()),
            log_format=log_format,
            log_level=log_level,
        )
    )


class Entry(NamedTuple):
    """Where a command, or a group of them, is, and the heading that it stands under."""

    heading: str
    module: str
    attribute: str = "app"


# In the order of the help. A module is imported when its command is what was typed.
COMMANDS = {
    "serve": Entry("Broker", __name__, "serve"),
    "produce": Entry("Messages", "ottla.cli.produce", "produce"),
    "consume": Entry("Messages", "ottla.cli.consume", "consume"),
    "topic": Entry("Administration", "ottla.cli.topic"),
    "group": Entry("Administration", "ottla.cli.group"),
    "config": Entry("Administration", "ottla.cli.config"),
    "feature": Entry("Administration", "ottla.cli.feature"),
    "transaction": Entry("Administration", "ottla.cli.transactions.app"),
    "acl": Entry("Administration", "ottla.cli.security.acl"),
    "user": Entry("Administration", "ottla.cli.security.user"),
    "token": Entry("Administration", "ottla.cli.security.token"),
    "quota": Entry("Administration", "ottla.cli.security.quota"),
    "cluster": Entry("Administration", "ottla.cli.cluster"),
    "apis": Entry("Administration", "ottla.cli.apis", "apis"),
    "logdirs": Entry("Administration", "ottla.cli.logdirs", "logdirs"),
    "producers": Entry("Administration", "ottla.cli.producers", "producers"),
    "top": Entry("Tools", "ottla.cli.top.command", "top"),
    "log": Entry("Tools", "ottla.cli.log"),
    "trace": Entry("Tools", "ottla.cli.trace", "trace"),
    "bench": Entry("Tools", "ottla.cli.bench.app"),
    "explore": Entry("Tools", "ottla.cli.explore", "explore"),
    "simulate": Entry("Tools", "ottla.cli.simulate", "simulate"),
    "profile": Entry("Command line", "ottla.cli.profile"),
    "version": Entry("Command line", "ottla.cli.about", "version"),
    "help": Entry("Command line", "ottla.cli.about", "help_"),
}


class Root(command_line.Group):
    """`ottla` itself. Typer would list single commands before groups."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [name for name in COMMANDS if name in self.commands]


@cache
def app_of(name: str | None = None) -> typer.Typer:
    """The app of one command or group of ``COMMANDS``; of all for None."""
    app = typer.Typer(
        name="ottla",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(cls=Root)(root)
    for one, entry in COMMANDS.items():
        if name in (None, one):
            found: Any = getattr(import_module(entry.module), entry.attribute)
            if isinstance(found, typer.Typer):
                app.add_typer(found, name=one, rich_help_panel=entry.heading)
            else:
                app.command(name=one, rich_help_panel=entry.heading)(found)
    command_line.dress(app)
    return app


# What may be any bytes: it goes into messages or comes before them on a line, or it is a path.
RAW_COMMANDS = {
    "produce": ("--key", "-k", "--key-separator", "--header", "-H", "--null"),
    "consume": ("--format", "--key-separator"),
    "serve": ("--data", "--config"),
    "cluster": ("--data", "--file", "-f"),
    "log": ("",),
    "trace": ("--data",),
    "simulate": ("--trace",),
    "explore": ("",),
}


def check_words(words: Sequence[str]) -> None:
    """CliError (usage) where one is not valid UTF-8 and would go where only text can.

    Bytes that are none come as lone surrogates, on which librdkafka's binding ends the process.
    """
    raw = RAW_COMMANDS.get(words[0] if words else "", ())
    before = ""
    for word in words:
        option, equals, _ = word.partition("=")
        is_raw = before in raw or "" in raw or (equals and option in raw) or word[:2] in raw
        if not is_text(word) and not is_raw:
            raise CliError(f"{shown(word)} is not valid UTF-8", ExitCode.USAGE)
        before = word


def _app_for(words: Sequence[str]) -> typer.Typer:
    first = next((word for word in words if word[:1] != "-"), "")
    return app_of(first if first in COMMANDS else None)


def _in_our_words(words: Sequence[str]) -> list[str]:
    """A command line with our options in place of others'."""
    command: Any = typer.main.get_command(_app_for(words))
    names: list[str] = []
    rest = list(words)
    while rest and (name := aliases.verb_of(rest[0], getattr(command, "commands", {}))) in getattr(
        command, "commands", {}
    ):
        names.append(name)
        command, rest = command.commands[name], rest[1:]
    return [*names, *(rest if hasattr(command, "commands") else aliases.options(command.params, rest))]


def run(words: list[str]) -> int:
    """Run a command line and return its exit code. Raises CliError for what the user is to be told."""
    try:
        check_words(words)
        meant = aliases.command(words)
        if meant.hint is not None:
            raise aliases.hint(_in_our_words(meant.words), meant)
        result: Any = _app_for(meant.words)(meant.words, prog_name="ottla", standalone_mode=False)
    except SystemExit as error:
        # Click makes an exit of a broken pipe; main() knows better what that is.
        if isinstance(error.__context__, BrokenPipeError):
            raise error.__context__ from None
        raise
    except typer.Abort:
        return ExitCode.INTERRUPTED
    except UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            # A group without a command: its help says which there are.
            typer.echo(error.ctx.get_help())
            return ExitCode.USAGE
        raise CliError(usage.text_of(error), ExitCode.USAGE) from None
    except ClickException as error:
        raise CliError(str(error)) from None
    except ValueError as error:
        # What no check of ours caught, librdkafka's binding did: text that is not UTF-8, an empty group.
        raise CliError(f"an argument is not acceptable: {error}", ExitCode.USAGE) from error
    except Exception as error:
        kafka = sys.modules.get("confluent_kafka")
        if kafka is None or not isinstance(error, kafka.KafkaException):
            raise
        from ottla.cli.client import explain

        raise explain(error.args[0], "the cluster") from error
    return result if isinstance(result, int) else ExitCode.OK
