"""docs/pictures/explore-run.svg: the run that docs/EXPLORE.md tells of, by the command in its report.

`python scripts/explore_picture.py` runs it, and draws it anew.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "pictures" / "explore-run.svg"
PROGRAM = re.compile(r'^```python title="(test_shop\.py)"\n(.*?)^```$', re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"^ +ottla (explore test_shop\.py::\w+ --seed .*)$", re.MULTILINE)
FAILED = 1


def main() -> None:
    page = (ROOT / "docs" / "EXPLORE.md").read_text()
    program, command = PROGRAM.search(page), COMMAND.search(page)
    if program is None or command is None:
        raise SystemExit("docs/EXPLORE.md has no test_shop.py, or no report of a run of it")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, program[1]).write_text(program[2])
        arguments = [*shlex.split(command[1]), "--picture", str(PICTURE)]
        done = subprocess.run([sys.executable, "-m", "ottla", *arguments], cwd=folder, check=False)
    if done.returncode != FAILED:
        raise SystemExit(
            "the run does not fail as docs/EXPLORE.md says: write its report anew, from `ottla explore`"
        )


if __name__ == "__main__":
    main()
