"""The comparison of brokers: order, medians, what is said of those that fail. No peer is installed here."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "bench"))

import asking  # noqa: E402
import comparing  # noqa: E402
import comparison  # noqa: E402
import page  # noqa: E402
import peers  # noqa: E402
from comparing import Deadline, Results  # noqa: E402
from comparison import Against, Column, Figures, Step, Tools  # noqa: E402
from peers import Broker, Peer, Unavailable  # noqa: E402

RATE = Column(("messages_per_s",), "messages/s")
P50 = Column(("latency_ms", "p50"), "p50 ms")
TOOLS = Tools(None, 1.0, 0.1)


class Fake:
    """A broker that notes who was run, and fails where it is told to."""

    host, port, bootstrap = "127.0.0.1", 9, "127.0.0.1:9"

    def __init__(self, name: str, ran: list[str], error: str = "") -> None:
        self.name, self._ran, self._error = name, ran, error

    def pids(self) -> frozenset[int]:
        return frozenset()

    def ready(self) -> None:
        pass

    def run(self) -> Figures:
        self._ran.append(self.name)
        if self._error:
            raise Unavailable(self._error)
        return {"messages_per_s": 1234.5678, "latency_ms": {"p50": 0.5, "p99": None}}


STEP = Step("A step", "How; load from {client}.", (RATE, P50), lambda broker, tools: broker.run())  # type: ignore[attr-defined]


def peer(name: str, *program: str) -> Peer:
    return Peer(name, f"about {name}", None, lambda port, data, programs: [*program, str(port), str(data)])


def found(title: str, **runs: list[Figures]) -> dict[str, object]:
    """Results of one step."""
    return {
        "date": "2026-01-31",
        "command": "bench/compare",
        "machine": "2 cores",
        "runs_wanted": 3,
        "scale": 1.0,
        "note": "",
        "brokers": [{"name": name, "version": "1.0", "about": f"about {name}"} for name in runs],
        "missing": {},
        "has_etcd": True,
        "runs": {title: runs},
        "errors": {},
    }


def test_runs_are_interleaved_and_failures_are_kept() -> None:
    ran: list[str] = []
    results = Results()
    brokers = [Fake("a", ran), Fake("b", ran, "too slow")]
    comparing.measure([STEP], brokers, TOOLS, 2, Deadline(1, 2), results)
    assert ran == ["a", "b", "a", "b"]
    assert results.errors == {"A step": {"b": "too slow"}}
    assert results.runs == {"A step": {"a": [{"messages_per_s": 1234.6, "latency_ms": {"p50": 0.5}}] * 2}}


def test_where_the_time_is_over_each_step_is_done_once() -> None:
    now_s = 0.0
    ran: list[str] = []

    def run(broker: comparison.Contender, tools: Tools) -> Figures:
        nonlocal now_s
        now_s += 40
        return broker.run()  # type: ignore[attr-defined,no-any-return]

    steps = [Step(title, "", (RATE,), run) for title in ("one", "two")]
    deadline = Deadline(2, 2, lambda: now_s)
    comparing.measure(steps, [Fake("a", ran)], TOOLS, 3, deadline, Results())
    # A minute for each: two runs of the first, which takes more than its share; one of the second.
    assert ran == ["a", "a", "a"]


def test_what_cannot_be_prepared_is_not_run() -> None:
    def refuse(broker: comparison.Contender) -> None:
        raise asking.Refused("no room")

    ran: list[str] = []
    results = Results()
    step = Step("A step", "", (RATE,), STEP.run, Against.ONE, refuse)
    comparing.measure([step], [Fake("a", ran)], TOOLS, 2, Deadline(1, 1), results)
    assert ran == [] and results.errors == {"A step": {"a": "no room"}}


def test_the_page_says_what_was_compared_what_failed_and_what_was_left_out() -> None:
    title = "Batched produce, 6 partitions, 100 B, acks=1"
    figures = [{"messages_per_s": rate, "client": "a client", "mb_per_s": 0.5} for rate in (1000, 3000, 2000)]
    results = found(title, a=figures, b=figures[:1])
    results |= {"missing": {"c": "cannot be installed"}, "errors": {title: {"b": "it broke"}}}
    text = page.render(results)
    assert "on 2026-01-31: `bench/compare`" in text
    assert "| a | 1.0 | about a |" in text
    assert "- c: cannot be installed" in text
    assert f"## {title}" in text
    assert "--acks 1`; load from a client." in text
    # Columns that nobody has are left out.
    assert "| a | 2,000 (1,000 – 3,000) | 0.50 |" in text
    assert "b: some runs failed (it broke)." in text
    assert "the median of 3 runs" in text
    assert "Metadata" not in text
    said = page.text(results)
    assert title in said and "2,000 (1,000 – 3,000)" in said and "it broke" in said


def test_the_page_says_where_there_was_no_time_and_what_is_calculated() -> None:
    (step,) = [one for one in comparison.plan(1.0) if one.against is Against.PROCESSES]
    one_run = [{"requests_per_s": 50_000, "broker_cpu_us_per_request": 20.0}]
    results = found(step.title, **{"ottla, 1 process": one_run, "ottla, 2 processes": one_run})
    said = page.remarks(results, step)
    assert said[0] == "1 run only."
    assert "16 / 20 µs ≈ 800,000" in said[1] and said[1].startswith("ottla, calculated, not measured")


def test_what_the_load_program_finds_has_the_names_of_the_bench() -> None:
    latencies = {f"{name}_ms": 1.0 for name in ("p50", "p99", "p99.9", "max")}
    measured = {"count": 1000, "seconds": 2.0, "bytes": 2e6, "client_cpu_s": 0.01, **latencies}
    figures = comparison.as_bench(measured | {"broker_cpu_s": 0.02, "broker_memory_mb": 40.0})
    assert figures["requests_per_s"] == 500 and figures["mb_per_s"] == 1
    assert figures["broker_cpu_us_per_request"] == 20 and figures["client_cpu_us_per_request"] == 10
    assert figures["broker_cpu_s_per_gb"] == 10
    assert "broker_memory_mb" not in comparison.as_bench(measured)


@pytest.mark.parametrize("scale", [0.001, 1.0, 10.0])
def test_every_step_is_a_command_that_exists(scale: float) -> None:
    sys.path.insert(0, str(ROOT / "scripts"))
    import cli_docs

    from ottla.cli.app import app_of

    commands = dict(cli_docs.commands(app_of()))
    steps = comparison.plan(scale)
    titles = [step.title for step in steps]
    assert len(set(titles)) == len(titles)
    shown = [words for step in steps for words in re.findall(r"`ottla (bench [^`]+)`", step.how)]
    asked = [
        " ".join(("bench", *r.run.arguments(TOOLS))) for r in steps if isinstance(r.run, comparison.Requests)
    ]
    assert len(shown) > 5 and len(asked) > 5
    for words in map(str.split, [*shown, *asked]):
        options = cli_docs.parameters(commands[f"ottla bench {words[1]}"])
        known = {name for option in options for name in option.names}
        assert {word for word in words if word.startswith("--")} <= known


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--with", "kafka"], "there is no kafka"),
        (["--runs", "0"], "at least 1"),
        (["--minutes", "0"], "more than 0"),
        (["--peer", "x=1"], "no HOST:PORT"),
    ],
)
def test_mistakes_are_said_before_anything_is_measured(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        comparing.main(arguments)
    assert said in capsys.readouterr().err


def test_an_ottla_of_several_processes_has_a_name_and_a_command() -> None:
    one, two = (peers.with_processes(peers.PEERS[0], count) for count in (1, 2))
    assert (one.name, two.name) == ("ottla, 1 process", "ottla, 2 processes")
    assert "--processes" not in one.command(1, Path("d"), Path("p"))
    assert list(two.command(1, Path("d"), Path("p")))[-2:] == ["--processes", "2"]


def test_a_broker_that_ends_at_once_is_reported_with_its_last_words(tmp_path: Path) -> None:
    broken = peer("broken", sys.executable, "-c", "import sys; sys.exit('no such luck')")
    with pytest.raises(Unavailable, match="ended with 1: no such luck"):
        Broker(broken, tmp_path / "broken").start()


def test_a_broker_that_never_answers_is_given_up_and_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "START_TIMEOUT_S", 0.3)
    broker = Broker(peer("mute", sys.executable, "-c", "import time; time.sleep(60)"), tmp_path / "mute")
    with pytest.raises(Unavailable, match="no answer within"):
        broker.start()
    assert not broker.alive()


def is_running(pid: str) -> bool:
    """Whether a process is there, and is more than a zombie, which it stays where nobody collects orphans."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_stopping_ends_what_the_broker_started_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    note = tmp_path / "pid"
    program = (
        "import pathlib, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"pathlib.Path({str(note)!r}).write_text(str(child.pid))\n"
        "time.sleep(60)\n"
    )
    # On a busy machine it may have to be given longer, to start anything.
    for timeout_s in (0.5, 5, 50):
        monkeypatch.setattr(peers, "START_TIMEOUT_S", timeout_s)
        with pytest.raises(Unavailable, match="no answer"):
            Broker(peer("parent", sys.executable, "-c", program), tmp_path / "parent").start()
        if note.exists():
            break
    # A process that was killed ends when the kernel next runs it, which may be a while on a busy machine.
    deadline = time.monotonic() + 60
    while is_running(note.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_peer_that_cannot_be_installed_is_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    program = venv / "bin" / "python"
    program.write_text("#!/bin/sh\necho 'ERROR: No matching distribution' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(peers, "VENV", venv)
    with pytest.raises(Unavailable, match="No matching distribution"):
        peers.install(Peer("x", "", "x-package", lambda port, data, programs: []))
