"""Runs a page of the documentation as a reader would: block by block, in one bash, in an empty directory.

A page's addresses, paths and hosts are replaced by ones of the test's own (`Reader.here`); nothing else is.
Commands that go on until they are stopped (`ottla serve`, `ottla cluster up`, …) run in the background, as in
another terminal, and the page goes on when they are ready.
"""

from __future__ import annotations

import os
import random
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from etcd_support import EtcdCluster, Tls
from pages.page import ROOT, Block, statements, unlike

STATEMENT_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 60.0
# Ports that pages name: each ten of them is replaced by ten others.
PORTS = re.compile(r"(?<![\d.])(909|919|930|229)(\d)(?!\d)")
TENS = ("909", "919", "930", "229")
# Addresses and hosts that pages name, and what they are on the test's machine. The longer ones come first.
HOSTS = {
    "0.0.0.0": "127.0.0.1",
    "kafka.example.org": "127.0.0.1",
    "broker.example.org": "localhost",
    "10.0.1.20": "127.0.0.1",
}
FOLDERS = ("/srv", "/etc/ottla", "/etc/etcd-secrets", "/etc/prometheus", "/etc/systemd/system")
# Programs that do less than on a page's machine, where there are users of their own and a service manager.
PROGRAMS = {
    "install": """\
#!/bin/bash
while (($#)); do
    case $1 in --owner) shift 2 ;; *) kept+=("$1"); shift ;; esac
done
exec /usr/bin/install "${kept[@]}"
""",
    "systemctl": "#!/bin/sh\n",
}
# An etcd with TLS, by the certificates that a page's command has made in the folder `secrets`.
SECURED_STORE = re.compile(r"(?<=https://)10\.0\.1\.10:2379|(?<=etcds://)[\w.:,]+")
STORE = re.compile(r"etcd://[\w.:,]+")
SERVER = re.compile(r"^\s*(?:\S*/)?ottla serve\b")
CLUSTER = re.compile(r"^\s*(?:\S*/)?ottla cluster up\b")
# Others that go on until somebody stops them, or for long.
WATCHING = re.compile(r"^\s*(?:\S*/)?ottla (?:trace|consume\b.*--follow)\b")
# A cluster's nodes listen one after the other, and not in the order of their numbers.
READY = {"server": re.compile("listening on"), "cluster": re.compile("cluster ready|already run")}
# How a command may end that was told to stop.
STOPPED = (0, 128 + signal.SIGTERM)
# Where a page's commands say no address, they have that of the page's broker.
WRAPPER = """\
#!/bin/bash
listens() {{
    before=
    for word in "$@"; do
        [ "$word" = --listen ] && return
        [ "$before" = --set ] && [ "${{word#listeners=}}" != "$word" ] && return
        [ "$before" = --config ] && grep -q ^listeners= "$word" && return
        before=$word
    done
    return 1
}}
case "$1 $2" in
serve*) listens "$@" || set -- "$@" --listen 127.0.0.1:{port}
    set -- "$@" --set group.initial.rebalance.delay.ms=0 ;;
"cluster up") case "$*" in *--port*) ;; *) set -- "$@" --port {port} ;; esac
    set -- "$@" --set group.initial.rebalance.delay.ms=0 ;;
esac
exec {ottla} "$@"
"""


class Mistake(AssertionError):
    """A block does not do what its page says."""


class Background:
    """A command that goes on in the background."""

    def __init__(self, pid: int, kind: str, out: Path) -> None:
        self.pid = pid
        self.kind = kind
        self.out = out

    def said(self) -> str:
        return self.out.read_text(errors="replace")

    def alive(self) -> bool:
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        return True


class Reader:
    """Somebody who follows one page. Use it as a context manager: all that was started ends with it."""

    def __init__(self, folder: Path, stand_ins: dict[str, str]) -> None:
        """``stand_ins``: what is run in place of a line that the test cannot run as it stands."""
        self.folder = folder
        self.stand_ins = stand_ins
        self.ports = dict(zip(TENS, _tens_of_free_ports(len(TENS)), strict=True))
        self.running: list[Background] = []
        self._count = 0
        self._etcd: EtcdCluster | None = None
        self._secured_etcd: EtcdCluster | None = None
        # A copy: secrets are made in it.
        shutil.copytree(ROOT / "deploy", folder / "deploy", ignore=shutil.ignore_patterns("secrets"))
        for name in FOLDERS:
            Path(f"{folder}{name}").mkdir(parents=True)
        notes = folder / ".notes"
        notes.mkdir()
        self._notes = notes
        self._make_programs()
        read, write = os.pipe()
        self._said = read
        self._heard = b""
        self._bash = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=folder,
            env=self._environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(write,),
            start_new_session=True,
            text=True,
        )
        self._tell(f"exec 9>&{write} {write}>&-; set -o pipefail")
        os.close(write)

    def _make_programs(self) -> None:
        """`ottla`, `python` and `pytest` of the venv, on the PATH and in the page's `.venv/bin`."""
        made = self.folder / ".venv" / "bin"
        made.mkdir(parents=True)
        real = Path(sys.executable).parent
        for name in ("python", "pytest", "ottla"):
            text = f'#!/bin/sh\nexec {real / name} "$@"\n'
            if name == "ottla":
                text = WRAPPER.format(ottla=real / "ottla", port=self.here("9092"))
            self._make_program(name, text)
        for name, text in PROGRAMS.items():
            self._make_program(name, text)

    def _make_program(self, name: str, text: str) -> None:
        path = self.folder / ".venv" / "bin" / name
        path.write_text(text)
        path.chmod(0o755)

    def _environment(self) -> dict[str, str]:
        # Where bytecode is not kept, each command compiles all of Ottla anew.
        left_out = ("OTTLA", "PYTEST", "PYTHONDONTWRITEBYTECODE")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
        return kept | {
            "HOME": str(self.folder),
            "PATH": f"{self.folder}/.venv/bin:{os.environ['PATH']}:{ROOT}/build/prometheus",
            "OTTLA_BOOTSTRAP": f"127.0.0.1:{self.here('9092')}",
            "COLUMNS": "120",
            "PYTHONUNBUFFERED": "1",
        }

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, failed: object, *_: object) -> None:
        try:
            for one in reversed(self.running):
                self.stop(one, whatever_happened=failed is not None)
        finally:
            # Its own group: the bash, and what it started that is still there.
            os.killpg(self._bash.pid, signal.SIGKILL)
            self._bash.wait()
            if self._bash.stdin is not None:
                self._bash.stdin.close()
            os.close(self._said)
            for etcd in (self._etcd, self._secured_etcd):
                if etcd is not None:
                    etcd.stop()

    def here(self, text: str) -> str:
        """A page's text with ports, hosts, folders and stores of the test's own."""
        if SECURED_STORE.search(text):
            text = SECURED_STORE.sub(self._secured_endpoints(), text)
        for name, address in HOSTS.items():
            text = text.replace(name, address)
        for name in FOLDERS:
            text = re.sub(rf"(?<![\w.]){name}\b", f"{self.folder}{name}", text)
        if STORE.search(text) or "h1:2379" in text:
            if self._etcd is None:
                self._etcd = EtcdCluster().start()
            text = STORE.sub(self._etcd.url(), text).replace("h1:2379", self._etcd.endpoints)
        return PORTS.sub(lambda found: str(self.ports[found[1]] + int(found[2])), text)

    def _secured_endpoints(self) -> str:
        if self._secured_etcd is None:
            secrets = self.folder / "secrets"
            tls = Tls(secrets / "ca.pem", secrets / "etcd.crt", secrets / "etcd.key")
            self._secured_etcd = EtcdCluster(tls=tls, extra=["--bcrypt-cost", "4"]).start()
        return self._secured_etcd.endpoints

    def follow(self, block: Block, shown: Block | None) -> None:
        """Do what a block says; ``shown``: the output that the page has for it."""
        if block.title:
            self._save(block)
        elif block.language == "python":
            (self.folder / ".notes" / "program.py").write_text(self.here(block.text))
            self._run_all(block, "python .notes/program.py\n", shown)
        else:
            self._run_all(block, block.text, shown)

    def _save(self, block: Block) -> None:
        path = self.folder / self.here(block.title)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.here(block.text))
        path.chmod(0o600)

    def _run_all(self, block: Block, text: str, shown: Block | None) -> None:
        said = ""
        pieces = list(statements(text))
        for number, statement in enumerate(pieces, 1):
            line = statement.strip().split("  #")[0].strip()
            statement = self.stand_ins.get(line, statement)
            if not _kind(statement):
                said += self._run(block, statement)
                continue
            watched = self._start(block, statement)
            said += self._until_like(watched, shown) if number == len(pieces) else watched.said()
        why = unlike(shown.text, said) if shown else ""
        if why:
            raise Mistake(f"{block}: {why}")

    def _until_like(self, watched: Background, shown: Block | None) -> str:
        """What a background command says, once that is what the page shows."""
        deadline = time.monotonic() + STATEMENT_TIMEOUT_S / 4
        while shown and watched.kind != "watching" and unlike(shown.text, watched.said()):
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
        return watched.said()

    def _run(self, block: Block, statement: str) -> str:
        file = self._written(statement)
        out = file.with_suffix(".out")
        self._tell(f"source {file} </dev/null >{out} 2>&1 9>&-; echo $? >&9")
        code = self._answer(block, statement)
        said = out.read_text(errors="replace")
        expected = re.search(r"# exit code (\d+)", statement)
        if code != (int(expected[1]) if expected else 0):
            logs = "\n".join(f"--- {one.kind}:\n{_tail(one)}" for one in self.running)
            raise Mistake(f"{block}: {statement.strip()!r} ended with {code}:\n{said}\n{logs}")
        return said

    def _start(self, block: Block, statement: str) -> Background:
        """Start a command in the background, and wait until it is ready."""
        kind = _kind(statement)
        if kind != "watching":
            for other in [one for one in reversed(self.running) if _makes_way(one.kind, kind)]:
                self.stop(other)
        statement = re.sub(r"\s+#[^'\"]*$", "", statement.rstrip())
        file = self._written(statement)
        out, log = file.with_suffix(".out"), file.with_suffix(".log")
        simple = "|" not in statement and ">" not in statement
        self._tell(
            f"{{ {'exec ' if simple else ''}{self.here(statement)} ; }} </dev/null >{out} 2>{log} 9>&- &"
        )
        self._tell("echo $! >&9")
        started = Background(self._answer(block, statement), kind, out)
        self.running.append(started)
        deadline = time.monotonic() + STATEMENT_TIMEOUT_S
        while kind != "watching" and not READY[kind].search(started.said() + log.read_text(errors="replace")):
            if not started.alive() or time.monotonic() > deadline:
                raise Mistake(f"{block}: {statement!r} is not ready:\n{started.said()}\n{_tail(started)}")
            time.sleep(0.02)
        return started

    def stop(self, one: Background, *, whatever_happened: bool = False) -> None:
        """Have it stop, and wait for that. It must not have failed, unless that is no matter any more."""
        self.running.remove(one)
        self._tell(f"kill -TERM {one.pid} 2>&-; wait {one.pid}; echo $? >&9")
        code = self._answer(None, "the end of a command in the background", STOP_TIMEOUT_S)
        if code not in STOPPED and not whatever_happened:
            raise Mistake(f"{one.out.with_suffix('.sh').read_text()!r} ended with {code}:\n{_tail(one)}")

    def _written(self, statement: str) -> Path:
        self._count += 1
        file = self._notes / f"{self._count}.sh"
        file.write_text(self.here(statement) + "\n")
        for suffix in (".out", ".log"):
            file.with_suffix(suffix).touch()
        return file

    def _tell(self, line: str) -> None:
        assert self._bash.stdin is not None
        self._bash.stdin.write(line + "\n")
        self._bash.stdin.flush()

    def _answer(self, block: Block | None, statement: str, timeout_s: float = STATEMENT_TIMEOUT_S) -> int:
        """The number that bash says next."""
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._heard:
            left = deadline - time.monotonic()
            ready = left > 0 and select.select([self._said], [], [], left)[0]
            chunk = os.read(self._said, 1024) if ready else b""
            if not chunk:
                raise Mistake(f"{block}: {statement.strip()!r} did not end within {timeout_s:.0f} s")
            self._heard += chunk
        line, _, self._heard = self._heard.partition(b"\n")
        return int(line)


def _kind(statement: str) -> str:
    """``server``, ``cluster`` or ``watching`` for what goes on in the background, else ""."""
    for kind, known in (("server", SERVER), ("cluster", CLUSTER), ("watching", WATCHING)):
        if known.search(statement) and "--help" not in statement:
            return kind
    return ""


def _makes_way(running: str, new: str) -> bool:
    """Whether a reader stops what runs to start what is new: their ports are the same, or it watches them."""
    return running in ("server", "watching") or (running == "cluster" and new == "server")


def _tail(one: Background) -> str:
    log = one.out.with_suffix(".log")
    return "\n".join(log.read_text(errors="replace").splitlines()[-15:])


def _tens_of_free_ports(count: int) -> list[int]:
    """Beginnings of ranges of ten ports that were free a moment ago, below those that the kernel gives."""
    found: list[int] = []
    while len(found) < count:
        start = random.randrange(12_000, 30_000, 10)
        if start not in found and all(_free(port) for port in range(start, start + 10)):
            found.append(start)
    return found


def _free(port: int) -> bool:
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
