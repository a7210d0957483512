"""The Typer app of all commands, and how it ends: an exit code, and errors in one line."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from ottla.cli import cluster, config, consume, feature, group, log, output, produce, topic
from ottla.cli import serve as serve_command
from ottla.cli.bench import app as bench
from ottla.cli.client import explain
from ottla.cli.errors import CliError, ExitCode
from ottla.cli.options import whole_number
from ottla.cli.security import acl, quota, user
from ottla.cli.transactions import app as transaction
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


app = typer.Typer(
    name="ottla",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Kafka's protocol, semantics and log format, in Python: a broker, and the tools to work with any.",
)


def _version(asked: bool) -> None:
    if asked:
        from ottla import __version__, implementation

        output.say(f"ottla {__version__} ({implementation.name()})")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Kafka's protocol, semantics and log format, in Python: a broker, and the tools to work with any."""


@app.command(rich_help_panel="Broker")
def serve(
    data: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Where the broker keeps its data: log.dirs of the file, or ./data."),
    ] = None,
    listen: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Where to listen: listeners of the file, or 127.0.0.1:9092. Port 0 takes a free one.",
        ),
    ] = None,
    node_id: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            parser=whole_number(0),
            help="This broker's id: node.id of the file, or 1. In a cluster each node has another.",
        ),
    ] = None,
    advertise: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Where clients reach this broker: where it listens, or, if that is every address (0.0.0.0), "
            "this machine's name, which clients of a container do not know.",
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
            help="The cluster's name in the store, which may hold several: or ottla.",
        ),
    ] = None,
    rack: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The rack or zone that this broker is in: broker.rack of the file. A partition's replicas "
            "are spread over racks.",
        ),
    ] = None,
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
        str, typer.Option(metavar="|".join(serve_command.LOG_FORMATS), help="How the log on stderr looks.")
    ] = DEFAULTS.log_format,
    log_level: Annotated[
        str, typer.Option(metavar="|".join(serve_command.LOG_LEVELS), help="The least that is logged.")
    ] = DEFAULTS.log_level,
) -> int:
    """Run a broker: one by itself, or with --store a node of a cluster.

    Prints 'ottla: listening on HOST:PORT' when it is ready. SIGTERM or Ctrl-C stops it cleanly; in a cluster
    it hands over what it leads first. 'ottla cluster up' starts a whole cluster on this machine, to try.
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
            processes=processes,
            config_file=config_file,
            overrides=serve_command.parse_overrides(set_ or ()),
            log_format=log_format,
            log_level=log_level,
        )
    )


app.command(name="produce", rich_help_panel="Messages")(produce.produce)
app.command(name="consume", rich_help_panel="Messages")(consume.consume)
app.add_typer(topic.app, name="topic", rich_help_panel="Administration")
app.add_typer(group.app, name="group", rich_help_panel="Administration")
app.add_typer(config.app, name="config", rich_help_panel="Administration")
app.add_typer(feature.app, name="feature", rich_help_panel="Administration")
app.add_typer(transaction.app, name="transaction", rich_help_panel="Administration")
app.add_typer(acl.app, name="acl", rich_help_panel="Administration")
app.add_typer(user.app, name="user", rich_help_panel="Administration")
app.add_typer(quota.app, name="quota", rich_help_panel="Administration")
app.add_typer(cluster.app, name="cluster", rich_help_panel="Administration")
app.add_typer(log.app, name="log", rich_help_panel="Tools")
app.add_typer(bench.app, name="bench", rich_help_panel="Tools")


# What may be any bytes: it goes into messages or comes before them on a line, or it is a path.
RAW_COMMANDS = {
    "produce": ("--key", "--key-separator", "--header", "-H", "--null"),
    "consume": ("--format", "--key-separator"),
    "serve": ("--data", "--config"),
    "cluster": ("--data", "--file", "-f"),
    "log": ("",),
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


def run(words: list[str]) -> int:
    """Run a command line and return its exit code. Raises CliError for what the user is to be told."""
    try:
        check_words(words)
        result: Any = app(words, prog_name="ottla", standalone_mode=False)
    except SystemExit as error:
        # Click makes an exit of a broken pipe; main() knows better what that is.
        if isinstance(error.__context__, BrokenPipeError):
            raise error.__context__ from None
        raise
    except typer.Abort:
        return ExitCode.INTERRUPTED
    except UsageError as error:
        if not error.format_message():
            # A group without a command: its help has been shown, which says all.
            return ExitCode.USAGE
        raise CliError(_usage(error), ExitCode.USAGE) from None
    except ClickException as error:
        raise CliError(str(error)) from None
    except ValueError as error:
        # What no check of ours caught, librdkafka's binding did: text that is not UTF-8, an empty group.
        raise CliError(f"an argument is not acceptable: {error}", ExitCode.USAGE) from error
    except Exception as error:
        kafka = sys.modules.get("confluent_kafka")
        if kafka is None or not isinstance(error, kafka.KafkaException):
            raise
        raise explain(error.args[0], "the cluster") from error
    return result if isinstance(result, int) else ExitCode.OK


def _usage(error: Any) -> str:
    # Typer has pydantic look at some values, which begins all of its own so.
    message = error.format_message().strip().rstrip(".").replace("Value error, ", "")
    end = "" if message.endswith("?") else "."
    path = error.ctx.command_path if error.ctx is not None else "ottla"
    return f"{message}{end} See '{path} --help'."
