"""Our own collectd: its configuration, and the command that starts it as an ordinary process.

It has its own configuration, pid file and directory. The system's collectd, if there is one, is not touched.
"""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

from examples.metrics import topics

TEMPLATE = Path(__file__).with_name("collectd.conf")


def command(bootstrap: str, directory: Path, interval_s: float) -> list[str]:
    """Write the configuration into `directory`, and give the command. It watches `directory`/spool."""
    values = {
        "bootstrap": bootstrap,
        "directory": str(directory),
        "interval": f"{interval_s:g}",
        "topic": topics.SAMPLES,
        "host": socket.gethostname(),
    }
    text = TEMPLATE.read_text()
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    configuration = directory / "collectd.conf"
    configuration.write_text(text)
    # Debian keeps it in /usr/sbin, which is not in everybody's PATH.
    program = shutil.which("collectd") or "/usr/sbin/collectd"
    return [program, "-f", "-C", str(configuration)]
