"""`ottla serve --processes`: what each node is started with, and what a data directory holds of others."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from measuring import HANG_S
from ottla.cli import serve
from ottla.cli.errors import ExitCode
from ottla.cli.serve import Serve
from ottla.config import BrokerConfig, ConfigError
from ottla.env.clock import SystemClock
from ottla.env.disk import RealDisk
from ottla.env.network import listen_everywhere
from ottla.log.data_dir import node_folder, others_with_data
from ottla.metadata.alone import elsewhere, end_registrations, stand_alone
from ottla.metadata.image import ClusterImage, load
from ottla.metadata.sqlite import SqliteStore
from ottla.metadata.store import Delete, Put
from ottla.metadata.topics import NewTopic
from ottla.node import Node, NodeSettings
from ottla.pieces import whole
from ottla.processes import child, layout, supervisor

EMBEDDED: dict[str, Any] = {"shared": [("PLAINTEXT", 7)], "machine": "box", "embedded": True}


def nodes(processes: int, options: dict[str, Any] | None = None, **given: Any) -> list[NodeSettings]:
    settings = NodeSettings(**given)
    config = BrokerConfig(settings.to_properties())
    layout.check(config, processes)
    return layout.settings_of(settings, config, processes, **{**EMBEDDED, **(options or {})})


def configs(processes: int, options: dict[str, Any] | None = None, **given: Any) -> list[BrokerConfig]:
    return [BrokerConfig(one.to_properties()) for one in nodes(processes, options, **given)]


def ports(config: BrokerConfig) -> list[int]:
    return [endpoint.port for endpoint in config.listeners()]


def test_nodes_have_consecutive_ids_folders_and_ports() -> None:
    made = configs(3, data="/d", port=9092)
    assert [one.node_id for one in made] == [1, 2, 3]
    assert [one.data_dir for one in made] == ["/d", "/d/nodes/2", "/d/nodes/3"]
    assert [ports(one) for one in made] == [[9093], [9094], [9095]]
    assert [one.siblings for one in nodes(3)] == [(1, 2, 3)] * 3
    assert [one.shared for one in nodes(3)] == [(("PLAINTEXT", 7),)] * 3


def test_the_first_id_and_the_folder_may_come_from_the_file() -> None:
    properties = {"node.id": "10", "log.dirs": "/x", "listeners": "PLAINTEXT://h:1000"}
    made = configs(2, properties=properties)
    assert [one.node_id for one in made] == [10, 11]
    assert [one.data_dir for one in made] == ["/x", "/x/nodes/11"]
    assert [ports(one) for one in made] == [[1001], [1002]]


def test_free_ports_stay_free_ones() -> None:
    assert [ports(one) for one in configs(2, port=0)] == [[0], [0]]


def test_every_listener_has_ports_of_its_own_and_what_is_advertised_follows() -> None:
    listeners = {
        "listeners": "IN://[::1]:9092,OUT://0.0.0.0:9192",
        "advertised.listeners": "IN://[::1]:9092,OUT://example.org:443",
        "listener.security.protocol.map": "IN:PLAINTEXT,OUT:PLAINTEXT",
    }
    made = configs(2, properties=listeners)
    assert [ports(one) for one in made] == [[9093, 9193], [9094, 9194]]
    assert [[(e.host, e.port) for e in one.advertised_listeners()] for one in made] == [
        [("::1", 9093), ("example.org", 444)],
        [("::1", 9094), ("example.org", 445)],
    ]
    advertised = configs(2, port=9092, advertise=("outside", 5000))
    assert [one.advertised_listeners()[0][1:3] for one in advertised] == [
        ("outside", 5001),
        ("outside", 5002),
    ]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"port": 65534}, "from 65534 to 65536"),
        ({"port": 9092, "advertise": ("h", 65535)}, "advertised.listeners: .* from 65535 to 65537"),
        ({"properties": {"listeners": "A://h:100,B://h:102"}}, "A and B need 3 ports each"),
        ({"properties": {"metrics.listener": "h:65535"}}, "metrics.listener: 2 .* from 65535 to 65536"),
        ({"port": 9092, "properties": {"metrics.listener": "h:9094"}}, "metrics.listener and PLAINTEXT need"),
    ],
)
def test_ports_that_cannot_be_are_refused(given: dict[str, Any], said: str) -> None:
    properties = {"listener.security.protocol.map": "A:PLAINTEXT,B:PLAINTEXT,PLAINTEXT:PLAINTEXT"}
    given = {**given, "properties": {**properties, **given.get("properties", {})}}
    with pytest.raises(ConfigError, match=said):
        nodes(2, **given)


def test_each_node_has_a_port_for_metrics() -> None:
    def ports(given: str) -> list[str]:
        return [one.get("metrics.listener") for one in configs(2, properties={"metrics.listener": given})]

    assert ports("[::1]:9308") == ["[::1]:9308", "[::1]:9309"]
    assert ports("h:0") == ["h:0", "h:0"]
    assert ports("") == ["", ""]


def test_internal_topics_have_one_replica_on_one_machine_unless_told() -> None:
    name = "offsets.topic.replication.factor"
    assert [one.get(name) for one in configs(2)] == [1, 1]
    assert [one.get(name) for one in configs(2, properties={name: "2"})] == [2, 2]
    assert [one.get(name) for one in configs(2, {"embedded": False}, store="etcd://h")] == [3, 3]


def test_nodes_of_a_cluster_are_in_one_rack() -> None:
    cluster: dict[str, Any] = {"embedded": False}
    assert [one.get("broker.rack") for one in configs(2, cluster, store="etcd://h")] == ["box", "box"]
    assert [one.get("broker.rack") for one in configs(2, cluster, store="etcd://h", rack="r")] == ["r", "r"]
    given = {"broker.rack": "s"}
    assert [one.get("broker.rack") for one in configs(2, cluster, properties=given)] == ["s", "s"]
    assert [one.get("broker.rack") for one in configs(2)] == [None, None]


def test_settings_reach_a_node_as_they_are() -> None:
    import json

    (first, second) = nodes(2, data="/d", properties={"a.b": "c=ü"})
    for one in (first, second):
        line = child.line_of(one, "json", "debug", 77)
        assert line.endswith(b"\n")
        assert line.count(b"\n") == 1
        document = json.loads(line)
        assert child.settings_of(document) == one
        assert (document["parent"], document["log_format"], document["log_level"]) == (77, "json", "debug")


def test_a_node_of_another_version_does_not_start() -> None:
    """The program was replaced while the command ran."""
    line = child.line_of(nodes(2)[0], "text", "info", os.getpid()).replace(b'"version": "', b'"version": "0.')
    done = subprocess.run(
        [sys.executable, "-m", "ottla.processes.child"],
        input=line,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert b"ottla: node 1: version" in done.stderr


def test_a_node_whose_parent_has_ended_before_it_began_ends() -> None:
    line = child.line_of(nodes(2)[0], "text", "info", 2**22 + 1)
    done = subprocess.run(
        [sys.executable, "-m", "ottla.processes.child"],
        input=line,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL


def test_as_many_processes_as_there_are_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    from ottla import process
    from ottla.env import processors

    asked: list[int] = []
    monkeypatch.setattr(process, "run", lambda **options: asked.append(1) or 0)
    monkeypatch.setattr(supervisor, "run", lambda processes, **options: asked.append(processes) or 0)
    for found, processes in ((1, "auto"), (3, "auto"), (3, 2), (2, 1)):
        monkeypatch.setattr(processors, "usable", lambda found=found: found)
        serve.run(Serve(processes=processes))
    assert asked == [1, 3, 2, 1]


def test_one_process_imports_nothing_of_several() -> None:
    program = (
        "import sys, ottla.process, ottla.cli.serve\n"
        "names = ('ottla.processes', 'ottla.metadata.socket', 'ottla.env.unix', 'ottla.env.parent')\n"
        "assert not [name for name in sys.modules if name.startswith(names)]\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_the_command_imports_nothing_of_a_broker() -> None:
    """It is there before its nodes, and all the time beside them."""
    program = (
        "import sys, ottla.processes.supervisor\n"
        "layers = ('node', 'broker', 'replication', 'coordinators', 'wire.codec')\n"
        "names = tuple(f'ottla.{layer}' for layer in layers)\n"
        "assert not [name for name in sys.modules if name.startswith(names)]\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


@pytest.mark.parametrize("value", ["0", "257", "-1", "two", "1_0", ""])
def test_a_number_of_processes_that_is_none_is_refused(
    value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from ottla.cli.main import main

    with pytest.raises(SystemExit) as end:
        main(["serve", "--processes", value])
    assert end.value.code == ExitCode.USAGE
    assert "neither 'auto' nor a number from 1 to 256" in capsys.readouterr().err


# ------------------------------------------------------------ what is in a directory


def test_partitions_of_other_nodes_are_seen(tmp_path: Path) -> None:
    disk = RealDisk()
    path = str(tmp_path)
    assert others_with_data(disk, path) == []
    for name in ("2/t-0", "3/.lock", "4/t-0.0123456789abcdef0123456789abcdef-delete", "store", "five/t-0"):
        (tmp_path / "nodes" / name).mkdir(parents=True)
    assert others_with_data(disk, path) == [2]
    (tmp_path / "nodes" / "10" / "t-0.0123456789abcdef0123456789abcdef-stray").mkdir(parents=True)
    assert others_with_data(disk, path) == [2, 10]
    assert node_folder(path, 1, 1) == path
    assert node_folder(path, 1, 2) == f"{path}/nodes/2"


def test_an_address_that_is_shared_is_nobody_elses() -> None:
    (first,) = listen_everywhere("127.0.0.1", 0)
    try:
        with pytest.raises(OSError, match="in use"):
            listen_everywhere(*first.getsockname())
    finally:
        first.close()


def test_every_address_has_one_port() -> None:
    made = listen_everywhere("", 0)
    try:
        assert len({one.getsockname()[1] for one in made}) == 1
        assert len({one.family for one in made}) == len(made)
    finally:
        for one in made:
            one.close()


# ------------------------------------------------------------ one store, one node or several

STATES = {
    # As it was made; without a leader; led by the same node with a later state.
    "partitions/t/1": b'{"leader":-1,"leader_epoch":4,"epoch":9,"replicas":[1],"isr":[],"adding":[],'
    b'"removing":[],"elr":[],"last_elr":[1]}',
    "partitions/t/2": b'{"leader":1,"leader_epoch":2,"epoch":3,"replicas":[1],"isr":[1],"adding":[],'
    b'"removing":[],"elr":[],"last_elr":[]}',
}
ENDPOINT = b'{"endpoints":{"PLAINTEXT":["h",1]},"rack":null}'
KEYS = {
    "topics/t": b'{"id":"00000000000000000000000000000001","replicas":[[1],[1],[1]],"configs":{}}',
    "brokers/1": ENDPOINT,
    "brokers/2": ENDPOINT,
    "nodes/1": ENDPOINT,
    "nodes/2": ENDPOINT,
    "nodes/3": ENDPOINT,
    "stopping/2": b"{}",
    "controller": b'{"node_id":2}',
    "configs/brokers/2": b'{"a":"b"}',
    **STATES,
}


async def opened(path: Path, extra: dict[str, bytes] | None = None) -> SqliteStore:
    store = await SqliteStore.open(str(path / "m.db"), SystemClock())
    await store.txn([], [Put(key, value) for key, value in {**KEYS, **(extra or {})}.items()])
    return store


async def image_of(store: SqliteStore) -> ClusterImage:
    found = await store.range("")
    return whole(load(found.items, found.revision))


def test_what_others_hold_is_counted() -> None:
    async def run(path: Path) -> None:
        more = {
            "topics/u": b'{"id":"00000000000000000000000000000002","replicas":[[3,1],[2],[2]],"configs":{}}'
        }
        store = await opened(path, more)
        image = await image_of(store)
        assert elsewhere(image, (1,)) == {2: 2, 3: 1}
        assert elsewhere(image, (1, 2)) == {3: 1}
        assert elsewhere(image, (1, 2, 3)) == {}
        await store.close()

    import tempfile

    with tempfile.TemporaryDirectory() as path:
        asyncio.run(run(Path(path)))


def test_registrations_of_earlier_processes_end_and_nodes_that_are_left_out_are_forgotten(
    tmp_path: Path,
) -> None:
    async def run() -> None:
        store = await opened(tmp_path)
        before = await image_of(store)
        await end_registrations(store, before, (1, 2))
        image = await image_of(store)
        assert (dict(image.brokers), dict(image.stopping), image.controller_id) == ({}, {}, -1)
        assert set(image.nodes) == {1, 2}
        # That they were there before is what says whether they have lost data.
        assert image.nodes[1] == before.nodes[1]
        assert image.topics == before.topics
        assert image.broker_configs == before.broker_configs
        await store.close()

    asyncio.run(run())


def test_a_node_that_is_alone_again_leads_everything(tmp_path: Path) -> None:
    async def run() -> None:
        store = await opened(tmp_path)
        revision = await stand_alone(store, await image_of(store), 1)
        image = await image_of(store)
        assert image.revision == revision
        assert (dict(image.brokers), dict(image.nodes), image.controller_id) == ({}, {}, -1)
        states = image.topics["t"].partitions
        assert [(state.leader, state.isr) for state in states] == [(1, (1,))] * 3
        # Epochs only grow; who led all the time goes on as it was.
        assert [(state.leader_epoch, state.partition_epoch) for state in states] == [(0, 0), (5, 10), (2, 3)]
        assert states[1].last_elr == ()
        await store.close()

    asyncio.run(run())


def test_a_node_that_was_one_of_several_says_so_until_all_of_it_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may end in between: nodes are what tells the next start to do it."""
    from ottla.metadata import alone

    monkeypatch.setattr(alone, "TXN_OPERATIONS_MAX", 1)

    async def run() -> None:
        store = await opened(tmp_path)
        written: list[Any] = []
        txn = store.txn

        async def note(compares: Any, operations: Any) -> Any:
            written.extend(operations)
            return await txn(compares, operations)

        store.txn = note  # type: ignore[method-assign]
        await stand_alone(store, await image_of(store), 1)
        assert written[-1].key == "nodes/"
        assert any(operation.key == "partitions/t/1" for operation in written)
        await store.close()

    asyncio.run(run())


def test_several_that_had_only_begun_leave_nothing_without_a_leader(tmp_path: Path) -> None:
    """A node gives up what it led before it is remembered as one of several; it may end in between."""

    async def run() -> None:
        settings = NodeSettings(data=str(tmp_path), port=0)
        for begun in (False, True):
            if begun:
                store = await SqliteStore.open(str(tmp_path / "metadata.db"), SystemClock())
                given_up = (
                    b'{"leader":-1,"leader_epoch":7,"epoch":8,"replicas":[1],"isr":[],"adding":[],'
                    b'"removing":[],"elr":[],"last_elr":[1]}'
                )
                await store.txn([], [Put("partitions/t/0", given_up), Delete("brokers/", prefix=True)])
                await store.close()
            node = Node(settings)
            await node.start()
            metadata = node.services.metadata
            if not begun:
                await metadata.controller.create_topics([NewTopic("t", num_partitions=1)])
            state = metadata.image.topics["t"].partitions[0]
            assert (state.leader, state.isr) == (1, (1,))
            await node.stop()
        assert state.leader_epoch > 7

    asyncio.run(run())


def test_waiting_for_nodes_of_an_earlier_command_that_are_ending(tmp_path: Path) -> None:
    async def run() -> None:
        starting = supervisor.Supervisor(NodeSettings(data=str(tmp_path), port=0), 2, "text", "info")
        (tmp_path / "nodes" / "2").mkdir(parents=True)
        held = RealDisk().lock(str(tmp_path / "nodes" / "2" / ".lock"))
        started = time.monotonic()
        asyncio.get_running_loop().call_later(0.3, held.release)
        taken = await starting._take_directory()
        assert time.monotonic() - started >= 0.3
        taken.release()

    asyncio.run(run())


# ------------------------------------------------------------ the command and its nodes


class Dying(supervisor.Child):
    """A node of which only the lives are real: each lasts for so many milliseconds."""

    def __init__(self, lives_ms: list[int]) -> None:
        super().__init__(nodes(2)[0], ("text", "info"))
        self._lives_ms = lives_ms

    async def _run(self) -> tuple[int, int]:
        self.ready.set()
        await asyncio.sleep(self._lives_ms.pop(0) / 1000)
        if not self._lives_ms:
            self._stopping.set()
        return -signal.SIGKILL, 4711


def test_a_node_that_dies_again_and_again_is_started_ever_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervisor, "BACKOFF_MS_MIN", 1)
    monkeypatch.setattr(supervisor, "BACKOFF_MS_MAX", 4)
    monkeypatch.setattr(supervisor, "LASTED_MS_MIN", 10_000)
    dying = Dying([0] * 5)
    asyncio.run(dying.keep(None))
    said = [line.partition("ended with SIGKILL: it is started again in ")[2] for line in caplog.messages]
    assert said == ["1 ms", "2 ms", "4 ms", "4 ms"]
    assert dying.code == -signal.SIGKILL
    # One that lasted has not died soon.
    caplog.clear()
    monkeypatch.setattr(supervisor, "LASTED_MS_MIN", 5)
    asyncio.run(Dying([6, 6, 6]).keep(None))
    assert [line[-4:] for line in caplog.messages] == ["1 ms", "1 ms"]


def test_a_node_that_is_to_stop_while_it_waits_to_be_started_again_is_not(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervisor, "BACKOFF_MS_MIN", 60_000)

    async def run() -> None:
        dying = Dying([0, 0])
        keeping = asyncio.create_task(dying.keep(None))
        while "it is started again in" not in caplog.text:
            await asyncio.sleep(0)
        dying.stop()
        await asyncio.wait_for(keeping, HANG_S)
        assert dying.code == 0
        assert len(dying._lives_ms) == 1

    asyncio.run(run())


@pytest.mark.parametrize("noise", [b"", b"x" * 200_000 + b"\n", b"x\n" * 100_000, b"\xff\0\n"])
def test_a_node_may_print_what_it_likes(noise: bytes) -> None:
    async def run() -> None:
        one = supervisor.Child(nodes(2)[0], ("text", "info"))
        printed = asyncio.StreamReader(limit=supervisor.LINE_BYTES_MAX)
        listening = asyncio.create_task(one._listen(printed))
        for start in range(0, len(noise), 10_000):
            printed.feed_data(noise[start : start + 10_000])
            await asyncio.sleep(0)
        assert not one.ready.is_set()
        printed.feed_data(b"ottla: listening on 127.0.0.1:9093\n")
        await asyncio.wait_for(one.ready.wait(), HANG_S)
        printed.feed_data(noise)
        printed.feed_eof()
        await asyncio.wait_for(listening, HANG_S)

    asyncio.run(run())


def test_ctrl_c_while_the_command_is_being_imported_says_nothing() -> None:
    program = (
        "import importlib.abc, os, signal, sys\n"
        "class Pressing(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'ottla.cli.streams' and len(sys.argv) > 1:\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Pressing())\n"
        "import ottla.cli.main\n"
        "assert signal.getsignal(signal.SIGINT) is signal.default_int_handler\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run([*command, "now"], capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, b"")
    subprocess.run(command, check=True, timeout=60)
