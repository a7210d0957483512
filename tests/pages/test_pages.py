"""Every command and program of README, docs/ and deploy/README runs, in order, as a reader would: one test
for each page.

A block runs if its language is `sh` or `python`. A block with ``title="FILE"`` is saved as that file. A block
of `text` behind one that runs is the output: numbers may differ. Any other block is in `NOT_RUN`, with the
reason.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pages.page import ROOT, Block, blocks, pattern, statements, unlike
from pages.running import Mistake, Reader

PAGES = (
    "README.md",
    "docs/ARCHITECTURE.md",
    "docs/CLUSTER.md",
    "docs/CONFIG.md",
    "docs/CONTROL.md",
    "docs/EXPLORE.md",
    "docs/FAQ.md",
    "docs/FAULTS.md",
    "docs/METRICS.md",
    "docs/MONITORING.md",
    "docs/OPERATING.md",
    "docs/PROCESSES.md",
    "docs/SECURITY.md",
    "docs/STORE.md",
    "docs/TOP.md",
    "docs/TRACE.md",
    "docs/TROUBLESHOOTING.md",
    "deploy/README.md",
)

# Blocks that are not run: by page, how the block's first line begins, and the reason.
NOT_RUN: dict[str, dict[str, str]] = {
    "docs/ARCHITECTURE.md": {
        "src/ottla/": "the folders of the sources",
    },
    "docs/CONTROL.md": {
        "const control =": "tests/interop/node/control.mjs runs it",
    },
    "docs/EXPLORE.md": {
        "pip install": "installed with the tests",
        "seed 2: Broken": "how small depends on the time; tests/sim/test_world.py reads such a report",
        "ottla.explore.programs.checks": "of a run; tests/unit/test_explore_real.py reads such a report",
        "reader = [": "needs a world; was tried by hand",
    },
    "docs/MONITORING.md": {
        "docker compose": "needs Docker; tests/unit/test_deploy.py reads the files",
        "systemctl reload": "needs systemd",
        "kubectl apply": "needs a cluster of Kubernetes; tests/unit/test_monitoring.py reads the files",
        "scrape_configs:": "relabelling that only pods have",
    },
    "docs/OPERATING.md": {
        "for node in a:1": "ssh to other machines; tests/unit/test_deploy.py runs it with an ssh of its own",
        "ottla transaction force-terminate": "names a transaction that hangs; "
        "tests/scenarios/test_cli_transactions.py has some",
    },
    "docs/SECURITY.md": {
        "listener.name.sasl_ssl": "lines for a file; tests/unit/test_security_jaas.py reads such ones",
        "sasl.mechanism=SCRAM-SHA-256": "has a secret; tests/security/test_delegation_tokens.py does it",
    },
    "docs/TOP.md": {
        "pip install": "takes the terminal; tests/scenarios/test_cli_top.py reads its screen",
    },
    "docs/TRACE.md": {
        "TIME ": "of another client; tests/scenarios/test_trace.py",
        "slow: ": "of another client; tests/unit/test_observe_slow.py",
    },
    "deploy/README.md": {
        "docker build": "needs Docker; tests/scenarios/test_container.py runs what is in the image",
        "docker run": "needs Docker; tests/scenarios/test_container.py has the variable",
        "docker compose": "needs Docker; tests/unit/test_deploy.py reads the file",
        "kubectl apply -k deploy/kubernetes/plain": "needs a cluster of Kubernetes; "
        "tests/unit/test_deploy_kubernetes.py builds what is applied",
        "sh deploy/kubernetes/roll.sh": "needs a cluster of Kubernetes; tests/unit/test_deploy_kubernetes.py "
        "runs it with a kubectl of its own",
        "resources: [deploy/kubernetes/plain]": "tests/unit/test_deploy_kubernetes.py builds it",
        "kubectl set env": "needs a cluster of Kubernetes; "
        "tests/unit/test_deploy_kubernetes.py has the variable",
        "sudo chown": "needs Docker; tests/unit/test_deploy_secured.py reads the files",
        "kubectl apply -k deploy/secured": "needs a cluster of Kubernetes; "
        "tests/unit/test_deploy_kubernetes.py builds what is applied",
        "security.protocol=SASL_SSL": "has a secret; tests/security/test_deployed.py logs in so",
    },
}

# Pages with commands that are not run here, and the reason.
ELSEWHERE = {
    "docs/CLI.md": "generated; tests/unit/test_cli_docs.py checks its examples",
    "docs/ECOSYSTEM.md": "needs Flink and Spark; tests/interop/test_connect.py runs Connect",
    "docs/FROM-KAFKA.md": "has a test of its own",
    "docs/TESTING.md": "tests/pages/test_testing_page.py runs it",
}

# Lines in whose place another is run, on all pages.
STAND_INS = {
    "git clone REPOSITORY ottla && cd ottla": ":",
    # What `make run` does, after it has installed.
    "make run": "ottla serve --data data",
    "export PATH=$PWD/.venv/bin:$PATH": ":",
    ".venv/bin/pip install pytest": ":",
    # What deploy/secured/ottla.conf starts, alone: replicas are others' matter.
    "systemctl daemon-reload && systemctl enable --now ottla@1": "ottla serve --node-id 1 --cluster ottla "
    "--store 'etcds://10.0.1.10:2379?ca=/etc/ottla-secrets/ca.pem&user=ottla"
    "&password-file=/etc/ottla-secrets/etcd-ottla.password' --data /srv/ottla "
    "--set listeners=CLIENTS://10.0.1.20:9092,NODES://10.0.1.20:9094 --config /etc/ottla/server.properties "
    "--set ssl.keystore.location=/etc/ottla-secrets/node.pem "
    "--set ssl.truststore.location=/etc/ottla-secrets/ca.pem "
    "--set default.replication.factor=1 --set min.insync.replicas=1",
    # Who asks for the password is answered.
    "ottla user create alice --mechanism SCRAM-SHA-512": "echo secret | "
    "ottla user create alice --mechanism SCRAM-SHA-512",
}
# Languages of blocks that are pictures, or parts of a file that another test reads.
PICTURES = ("mermaid",)
OUTPUT = ("", "text")


def reasons(block: Block) -> list[str]:
    """How the lists of blocks that are not run name this one."""
    return [begin for begin in NOT_RUN.get(block.page, {}) if block.first_line.startswith(begin)]


def plan(page: str) -> list[tuple[Block, Block | None]]:
    """The blocks of a page that are run, each with its output. Fails for one that is in neither list."""
    planned: list[tuple[Block, Block | None]] = []
    before: Block | None = None
    for block in blocks(page):
        listed = bool(reasons(block))
        if block.language in PICTURES:
            continue
        if not listed and block.language in OUTPUT and not block.title:
            assert before is not None, (
                f"{block} is output, and no command stands before it: run it or list it"
            )
            planned[-1] = (before, block)
            before = None
            continue
        before = None
        if listed:
            continue
        assert block.title or block.language in ("sh", "python"), f"{block} is neither run nor listed"
        planned.append((block, None))
        before = None if block.title else block
    return planned


@pytest.mark.parametrize("page", PAGES)
def test_page(page: str, tmp_path: Path) -> None:
    planned = plan(page)
    text = (ROOT / page).read_text()
    if ("cluster up" in text or "ETCDCTL" in text) and not shutil.which("etcd"):
        pytest.skip("etcd is not installed")
    with Reader(tmp_path, STAND_INS) as reader:
        for block, shown in planned:
            reader.follow(block, shown)


def test_every_page_with_commands_is_listed() -> None:
    pages = ["README.md", "deploy/README.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
    having = [page for page in pages if any(block.language in ("sh", "python") for block in blocks(page))]
    assert not set(having) - {*PAGES, *ELSEWHERE}, "run them, or say why not"


def test_what_is_listed_is_there() -> None:
    named = [(page, begin) for page in PAGES for block in blocks(page) for begin in reasons(block)]
    listed = [(page, begin) for page, begins in NOT_RUN.items() for begin in begins]
    assert sorted(named) == sorted(listed), "an entry names one block"


# ------------------------------------------------------------ the reader itself


def made(text: str, language: str = "sh", title: str = "") -> Block:
    return Block("page", 1, language, title, text)


def test_a_reader_notices_what_does_not_work(tmp_path: Path) -> None:
    with Reader(tmp_path, {"never": "true"}) as reader:
        reader.follow(made("cd .\nX=5\nnever  # for a reason\n"), None)
        reader.follow(
            made("for n in 1 2; do\n    echo $n \\\n        $X\ndone\n"), made("1 5\n2 5\n", "text")
        )
        reader.follow(made("false  # exit code 1\n"), None)
        reader.follow(made("hello\n", "properties", "a.txt"), None)
        reader.follow(made("cat a.txt\n"), made("hello\n", "text"))
        with pytest.raises(Mistake, match="ended with 127"):
            reader.follow(made("no-such-command\n"), None)
        with pytest.raises(Mistake, match="ended with 1"):
            reader.follow(made("false | cat\n"), None)
        with pytest.raises(Mistake, match="no line is"):
            reader.follow(made("echo one\n"), made("two\n", "text"))
        with pytest.raises(Mistake, match="NameError"):
            reader.follow(made("print(nothing)\n", "python"), None)


def test_statements_are_what_bash_takes_one_by_one() -> None:
    text = "a  # why\n\n# nothing\nb \\\n  c\nwhile d; do\n    e\ndone\nf <<X\n1\nX\n"
    assert list(statements(text)) == [
        "a  # why\n", "b \\\n  c\n", "while d; do\n    e\ndone\n", "f <<X\n1\nX\n",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("shown", "said", "alike"),
    [
        ("a 1  b", "a 20 b", True),
        ("a\n…\nc", "a\nb\nb\nc", True),
        ("a\n…", "a\nb", True),
        ("a 10.5 s, …", "a 7 s, or more", True),
        ("a", "a\nb", False),
        ("b", "a\nb", False),
        ("a\nb", "a", False),
        ("a b", "ab", False),
    ],
)
def test_output_may_have_other_numbers(shown: str, said: str, alike: bool) -> None:
    assert (unlike(shown, said) == "") is alike


def test_addresses_in_output_match_any() -> None:
    assert pattern("ottla: listening on 127.0.0.1:9092").fullmatch("ottla: listening on 127.0.0.1:20012")
