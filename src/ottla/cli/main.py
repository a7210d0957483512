"""The console entry, `ottla`. Looks at the first word, and imports only what that command needs."""

from __future__ import annotations

import signal

# Until ``main`` watches for it, Ctrl-C ends the process as it ends others, without a traceback. (Where it is
# ignored, or this is imported by a thread of somebody's program, it stays as it is.)
_early = signal.getsignal(signal.SIGINT) is signal.default_int_handler
try:
    if _early:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
except ValueError:
    _early = False

import os  # noqa: E402 - see above, as for those that follow
import sys  # noqa: E402
from collections.abc import Sequence  # noqa: E402
from contextlib import suppress  # noqa: E402

from ottla import __version__, implementation  # noqa: E402
from ottla.cli.errors import CliError, ExitCode  # noqa: E402
from ottla.cli.streams import Interrupts, open_standard_streams  # noqa: E402
from ottla.cli.values import shown  # noqa: E402
from ottla.extras import MissingExtra, needed  # noqa: E402
from ottla.text import printable  # noqa: E402

if _early:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# What is longer has somebody's name of thousands of characters in it.
MESSAGE_CHARACTERS_MAX = 1000


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command and exit with its code. Never shows a traceback for what a user can cause."""
    code: int | str | None = ExitCode.INTERRUPTED
    with suppress(KeyboardInterrupt):
        open_standard_streams()
        interrupts = Interrupts()
        interrupts.watch()
        if argv is None:
            implementation.use_build()
        code = _exit_code(list(sys.argv[1:] if argv is None else argv), interrupts)
        interrupts.end()
    sys.exit(code)


def _exit_code(arguments: list[str], interrupts: Interrupts) -> int | str | None:
    try:
        code: int | str | None = _run(arguments)
        sys.stdout.flush()
    except CliError as error:
        _say(str(error))
        code = error.code
    except MissingExtra as error:
        _say(str(error))
        code = ExitCode.FAILED
    except KeyboardInterrupt:
        code = ExitCode.INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone (`| head`): end as other programs do, with nothing more to say.
        _drop_output()
        code = 128 + signal.SIGPIPE
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        _say(f"{error.filename}: {reason}" if isinstance(error.filename, str) else reason)
        _drop_output()
        code = ExitCode.FAILED
    except SystemExit as error:
        code = error.code
    except Exception:
        if not interrupts.pressed:
            raise
        code = ExitCode.INTERRUPTED
    return ExitCode.INTERRUPTED if interrupts.pressed and code not in (ExitCode.OK, None) else code


def _say(message: str) -> None:
    message = printable(message)
    if len(message) > MESSAGE_CHARACTERS_MAX:
        message = f"{message[:MESSAGE_CHARACTERS_MAX]}…"
    print(f"ottla: {message}", file=sys.stderr)


def _drop_output() -> None:
    """Keep Python from trying once more, at its end, to write what could not be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(arguments: list[str]) -> int:
    if arguments[:1] == ["serve"]:
        from ottla.cli import serve

        if options := serve.parse(arguments[1:]):
            return serve.run(options)
    if arguments == ["--version"]:
        print(f"ottla {__version__} ({implementation.name()})")
        return ExitCode.OK
    with needed(_command(arguments)):
        from ottla.cli.app import run

        return run(arguments)


def _command(arguments: Sequence[str]) -> str:
    """What was asked for, as the subject of a sentence."""
    word = next((word for word in arguments if not word.startswith("-")), None)
    if word is None:
        return "the command line"
    # Options of `ottla serve` that are right are read without the extra.
    return "the help of the command 'serve'" if word == "serve" else f"the command {shown(word)}"


if __name__ == "__main__":
    main()
