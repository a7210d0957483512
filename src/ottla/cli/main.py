"""The console entry, `ottla`. Looks at the first word, and imports only what that command needs."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

from ottla.cli.errors import CliError, ExitCode


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command and exit with its code. Never shows a traceback for what a user can cause."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except CliError as error:
        print(f"ottla: {error}", file=sys.stderr)
        code = error.code
    except KeyboardInterrupt:
        code = ExitCode.INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone (`| head`): end as other programs do, with nothing more to say.
        _drop_output()
        code = 128 + signal.SIGPIPE
    except OSError as error:
        print(f"ottla: {(error.strerror or str(error)).lower()}", file=sys.stderr)
        _drop_output()
        code = ExitCode.FAILED
    sys.exit(code)


def _drop_output() -> None:
    """Keep Python from trying once more, at its end, to write what could not be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(arguments: list[str]) -> int:
    if arguments[:1] == ["serve"]:
        from ottla.cli import serve

        if options := serve.parse(arguments[1:]):
            return serve.run(options)
    from ottla.cli.app import run

    return run(arguments)


if __name__ == "__main__":
    main()
