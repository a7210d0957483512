"""Our own rsyslogd: its configuration, and the command that starts it as an ordinary process.

It has its own configuration, socket, pid file and queue in a directory of ours. The system's rsyslogd, if
there is one, is not touched, and needs no change.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from examples.logs import topics

TEMPLATE = Path(__file__).with_name("rsyslog.conf")


def command(bootstrap: str, directory: Path, access_log: Path) -> list[str]:
    """Write the configuration into `directory`, and give the command. Its socket is `directory`/socket."""
    values = {
        "bootstrap": bootstrap,
        "directory": str(directory),
        "access_log": str(access_log),
        "topic": topics.LINES,
    }
    text = TEMPLATE.read_text()
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    configuration = directory / "rsyslog.conf"
    configuration.write_text(text)
    # Debian keeps it in /usr/sbin, which is not in everybody's PATH.
    program = shutil.which("rsyslogd") or "/usr/sbin/rsyslogd"
    return [program, "-n", "-f", str(configuration), "-i", str(directory / "pid")]
