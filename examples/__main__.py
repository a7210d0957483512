"""`python -m examples [NAME...]`: a broker of our own, and each example on it for half a minute.

`make examples` calls it. Each example runs in its own environment, build/examples/NAME.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
READY = re.compile(r"^ottla: listening on (\S+)$")


def found() -> list[str]:
    """The examples: the folders that can be run."""
    return sorted(path.parent.name for path in (ROOT / "examples").glob("*/__main__.py"))


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m examples", description=__doc__)
    options.add_argument("names", nargs="*", metavar="NAME", help="which (default: all)")
    options.add_argument("--seconds", type=float, default=30.0, help="how long each runs (default: 30)")
    arguments = options.parse_args()
    broken = []
    with tempfile.TemporaryDirectory(prefix="ottla-examples-") as data:
        serve = [sys.executable, "-m", "ottla.cli.main", "serve", "--data", data, "--listen", "127.0.0.1:0"]
        with (Path(data) / "broker.log").open("wb") as log:
            broker = subprocess.Popen(serve, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            assert broker.stdout is not None
            ready = READY.match(broker.stdout.readline())
            if ready is None:
                print(f"the broker did not start: {(Path(data) / 'broker.log').read_text()}", file=sys.stderr)
                return 2
            for name in arguments.names or found():
                print(f"\n=== {name}", flush=True)
                python = ROOT / "build" / "examples" / name / "bin" / "python"
                command = [python, "-m", f"examples.{name}", "--bootstrap", ready[1]]
                command += ["--seconds", str(arguments.seconds)]
                if subprocess.run(command, cwd=ROOT, check=False).returncode:
                    broken.append(name)
        finally:
            broker.terminate()
            broker.wait()
    if broken:
        print(f"\nbroken: {', '.join(broken)}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
