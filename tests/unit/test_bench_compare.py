"""The comparison of brokers: order, medians, what is said of those that fail. No peer is installed here."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "bench"))

import comparison  # noqa: E402
import page  # noqa: E402
import peers  # noqa: E402
from comparison import Column, Results, Step, summary  # noqa: E402
from peers import Broker, Peer, Unavailable  # noqa: E402

RATE = Column(("messages_per_s",), "messages/s", 0)
P50 = Column(("latency_ms", "p50"), "p50 ms", 3)
STEP = Step("A step", ("produce", "--messages", "1"), (RATE, P50))


def peer(name: str, *program: str) -> Peer:
    return Peer(name, f"about {name}", None, lambda port, data, programs: [*program, str(port), str(data)])


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([], "-"),
        ([5.0], "5"),
        ([5.0, 5.2], "5"),
        ([1.0, 9.0, 3.0], "3 (1 – 9)"),
        ([1000.0, 3000.0], "2,000 (1,000 – 3,000)"),
    ],
)
def test_medians_and_ranges(values: list[float], text: str) -> None:
    assert summary(values, 0) == text


def test_runs_are_interleaved(tmp_path: Path) -> None:
    a, b = (Broker(peer(name, "x"), tmp_path / name, 1) for name in "ab")
    order = [(run, broker.peer.name) for run, broker in comparison.interleaved(2, [a, b])]
    assert order == [(0, "a"), (0, "b"), (1, "a"), (1, "b")]


def test_figures_are_found_by_their_path() -> None:
    results = Results()
    results.add("A step", "a", {"messages_per_s": 10, "latency_ms": {"p50": 1.5}})
    results.add("A step", "a", {"messages_per_s": None, "latency_ms": {}})
    assert results.values("A step", "a", RATE) == [10]
    assert results.values("A step", "a", P50) == [1.5]
    assert results.values("A step", "b", RATE) == []


def test_the_page_says_what_was_compared_what_failed_and_what_was_left_out() -> None:
    results = Results()
    for rate in (1000, 3000, 2000):
        figures = {"messages_per_s": rate, "client": "a client", "latency_ms": {"p50": 0.5}}
        results.add(STEP.title, "a", figures)
    results.fail(STEP.title, "b", "it broke")
    compared = [peer("a"), peer("b"), peer("c")]
    text = page.render(compared, {"a": "1.0", "b": "2.0"}, {"c": "cannot be installed"}, [STEP], results, 3)
    assert "| a | 1.0 | about a |" in text
    assert "- c: cannot be installed" in text
    assert "## A step" in text
    assert "`ottla bench produce --messages 1`; load from a client." in text
    assert "| a | 2,000 (1,000 – 3,000) | 0.500 |" in text
    assert "| b | - | - |" in text
    assert "b: all runs failed (it broke)." in text
    assert "the median of 3\nruns" in text
    assert "## Start, and at rest" in text


@pytest.mark.parametrize("scale", [0.001, 1.0, 10.0])
def test_every_step_is_a_command_that_exists(scale: float) -> None:
    sys.path.insert(0, str(ROOT / "scripts"))
    import cli_docs

    from ottla.cli.app import app

    commands = dict(cli_docs.commands(app))
    titles = [step.title for step in comparison.plan(scale)]
    assert len(set(titles)) == len(titles)
    for step in comparison.plan(scale):
        options = cli_docs.parameters(commands[f"ottla bench {step.arguments[0]}"])
        known = {name for option in options for name in option.names}
        assert {word for word in step.arguments if word.startswith("--")} <= known


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
    monkeypatch.setattr(peers, "START_TIMEOUT_S", 0.5)
    note = tmp_path / "pid"
    program = (
        "import pathlib, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"pathlib.Path({str(note)!r}).write_text(str(child.pid))\n"
        "time.sleep(60)\n"
    )
    with pytest.raises(Unavailable, match="no answer"):
        Broker(peer("parent", sys.executable, "-c", program), tmp_path / "parent").start()
    # A process that was killed ends when the kernel next runs it, which may be a while on a busy machine.
    deadline = time.monotonic() + 10
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


def test_a_failed_run_is_kept_as_an_error() -> None:
    results = Results()

    def fail() -> dict[str, object]:
        raise Unavailable("too slow")

    comparison._try(results, "A step", "a", fail)
    assert results.errors == {"A step": {"a": "too slow"}}
    assert results.runs == {}
