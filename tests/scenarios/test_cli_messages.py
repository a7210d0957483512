"""`ottla produce`, `consume` and `group`, against a real broker."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from uuid import uuid4

import pytest
from cli_support import Ottla
from crc32c import crc32c

from interop.process import BrokerProcess, wait_until
from ottla.cli.direct import DirectConnection
from ottla.errors import ErrorCode
from ottla.types import Record
from ottla.wire.records import build_batch


@pytest.fixture
def ottla(ottla_server: BrokerProcess) -> Ottla:
    return Ottla(ottla_server.bootstrap)


@pytest.fixture
def topic() -> str:
    return f"cli-{uuid4().hex[:10]}"


def numbered(ottla: Ottla, topic: str, count: int = 10) -> None:
    """A topic of one partition with messages "0", "1", …"""
    ottla("topic", "create", topic)
    ottla("produce", topic, stdin="".join(f"{i}\n" for i in range(count)).encode())


def line_of(process: subprocess.Popen[bytes], timeout_s: float = 20) -> bytes:
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], timeout_s)
    assert ready, "nothing was printed in time"
    return process.stdout.readline()


def test_lines_go_in_and_come_out(ottla: Ottla, topic: str) -> None:
    ottla("produce", topic, stdin="one\ntwo\r\n\nвосемь".encode())
    assert ottla("consume", topic).out == "one\ntwo\n\nвосемь\n"


def test_an_empty_topic_ends_at_once(ottla: Ottla, topic: str) -> None:
    ottla("topic", "create", topic, "-p", "3")
    assert ottla("consume", topic).out == ""
    assert ottla("produce", topic, stdin=b"").out == ""


def test_keys_headers_partitions_and_tombstones(ottla: Ottla, topic: str) -> None:
    ottla("topic", "create", topic, "-p", "2")
    options = ["--key-separator", ":", "-H", "a=1", "-H", "a=2", "--partition", "1", "--null", "NULL"]
    ottla("produce", topic, *options, stdin=b"k:v:w\n:nokey\nk2:NULL\n")
    said = ottla.fails(2, "produce", topic, *options, stdin=b"good:line\nnokey\nk3:never\n").err
    assert "line 2: there is no ':' in it to end a key (after 1 message sent)" in said
    first, second, third, fourth = ottla("consume", topic, "--json").json_lines
    assert (fourth["key"], fourth["value"]) == ("good", "line")
    assert (first["key"], first["value"], first["partition"], first["offset"]) == ("k", "v:w", 1, 0)
    assert first["headers"] == [{"key": "a", "value": "1"}, {"key": "a", "value": "2"}]
    assert abs(first["timestamp_ms"] - time.time() * 1000) < 60_000
    assert (second["key"], second["value"]) == ("", "nokey")
    assert (third["key"], third["value"]) == ("k2", None)
    assert ottla("consume", topic, "--key-separator", r"\t").out == "k\tv:w\n\tnokey\nk2\t\ngood\tline\n"
    assert ottla("consume", topic, "--format", "{partition}@{offset} {key}", "-n", "1").out == "1@0 k\n"


def test_json_copies_a_topic_byte_for_byte(ottla: Ottla, topic: str) -> None:
    headers = (
        '[{"key": "h", "value": {"base64": "AP8="}}, {"key": "a", "value": null}, {"key": "h", "value": ""}]'
    )
    lines = [
        f'{{"key": {{"base64": "/w=="}}, "value": "text", "headers": {headers}}}',
        '{"key": null, "value": null, "timestamp_ms": 1700000000000, "partition": 1}',
    ]
    copy = f"{topic}-copy"
    for name in (topic, copy):
        ottla("topic", "create", name, "-p", "2", "-c", "message.timestamp.before.max.ms=9223372036854775807")
    ottla("produce", topic, "--json", stdin="\n".join(lines).encode())
    dumped = ottla("consume", topic, "--json").out
    ottla("produce", copy, "--json", stdin=dumped.encode())

    def content(text: str) -> list[str]:
        return sorted(json.dumps({**json.loads(line), "topic": ""}) for line in text.splitlines())

    assert content(ottla("consume", copy, "--json").out) == content(dumped)
    values = {
        line["timestamp_ms"] == 1_700_000_000_000: line for line in map(json.loads, dumped.splitlines())
    }
    assert values[False]["key"] == {"base64": "/w=="}
    assert values[False]["headers"] == json.loads(headers)
    assert (values[True]["partition"], values[True]["key"], values[True]["value"]) == (1, None, None)
    assert values[True]["timestamp_type"] == "CreateTime"


def test_a_bad_json_line_is_named_and_what_came_before_is_delivered(ottla: Ottla, topic: str) -> None:
    failed = ottla.fails(2, "produce", topic, "--json", stdin=b'{"value": "good"}\n{"value": \n')
    assert "line 2: not JSON" in failed.err
    assert failed.err.endswith("(after 1 message sent)\n")
    assert ottla("consume", topic).out == "good\n"


def test_delivery_reports(ottla: Ottla, topic: str) -> None:
    ottla("topic", "create", topic)
    reports = ottla("produce", topic, "--report", stdin=b"a\nb\n").json_lines
    assert reports == [{"topic": topic, "partition": 0, "offset": i} for i in range(2)]


@pytest.mark.parametrize("compression", ["gzip", "snappy", "lz4", "zstd"])
def test_each_codec(ottla: Ottla, topic: str, compression: str) -> None:
    text = "".join(f"message {i}\n" for i in range(5_000))
    ottla("produce", topic, "--compression", compression, stdin=text.encode())
    assert ottla("consume", topic).out == text


@pytest.mark.parametrize("acks", ["all", "1", "0"])
def test_each_kind_of_acknowledgement(ottla: Ottla, topic: str, acks: str) -> None:
    ottla("topic", "create", topic)
    ottla("produce", topic, "--acks", acks, stdin=b"x\n")
    wait_until(lambda: ottla("consume", topic).out == "x\n")


def test_a_message_that_is_too_large_fails_the_command(ottla: Ottla, topic: str) -> None:
    ottla("topic", "create", topic, "-c", "max.message.bytes=1000")
    failed = ottla.fails(1, "produce", topic, stdin=b"small\n" + b"x" * 5000 + b"\n")
    assert "too large" in failed.err
    assert "delivered" in failed.err


def test_how_large_a_message_may_be_is_for_the_topic_to_say(ottla: Ottla, topic: str) -> None:
    ottla("topic", "create", topic, "-c", "max.message.bytes=4000000")
    ottla("produce", topic, stdin=b"x" * 3_000_000 + b"\n")
    assert len(ottla("consume", topic).out) == 3_000_001
    assert "max.message.bytes" in ottla.fails(1, "produce", topic, stdin=b"x" * 5_000_000 + b"\n").err


def test_a_compacted_topic_wants_keys(ottla: Ottla, topic: str) -> None:
    ottla("topic", "create", topic, "-c", "cleanup.policy=compact")
    assert "--key-separator" in ottla.fails(1, "produce", topic, stdin=b"no key\n").err
    ottla("produce", topic, "--key", "k", stdin=b"v\n")


@pytest.mark.parametrize(
    ("position", "first"),
    [("beginning", 0), ("0", 0), ("7", 7), ("-3", 7), ("-100", 0), ("1h", 0), ("10", 10), ("end", 10)],
)
def test_positions(ottla: Ottla, topic: str, position: str, first: int) -> None:
    numbered(ottla, topic)
    assert ottla("consume", topic, "--from", position).out.split() == [str(i) for i in range(first, 10)]


def test_a_position_in_time(ottla: Ottla, topic: str) -> None:
    ottla("topic", "create", topic, "-c", "message.timestamp.before.max.ms=9223372036854775807")
    lines = [{"value": str(i), "timestamp_ms": 1_700_000_000_000 + i * 1000} for i in range(5)]
    ottla("produce", topic, "--json", stdin="\n".join(map(json.dumps, lines)).encode())
    assert ottla("consume", topic, "--from", "@1700000002500").out.split() == ["3", "4"]
    assert ottla("consume", topic, "--from", "2023-11-14T22:13:24Z").out.split() == ["4"]
    assert ottla("consume", topic, "--from", "1m").out == ""


def test_partitions_are_chosen_and_messages_counted(ottla: Ottla, topic: str) -> None:
    ottla("topic", "create", topic, "-p", "3")
    for partition in range(3):
        lines = "".join(f"{partition}.{i}\n" for i in range(5)).encode()
        ottla("produce", topic, "--partition", str(partition), stdin=lines)
    assert ottla("consume", topic, "-p", "1").out.split() == [f"1.{i}" for i in range(5)]
    both = ottla("consume", topic, "-p", "1-2").out.split()
    assert sorted(both) == [f"{partition}.{i}" for partition in (1, 2) for i in range(5)]
    assert "has no partition 2147483647" in ottla.fails(4, "consume", topic, "-p", "0-2147483647").err
    assert len(ottla("consume", topic).out.split()) == 15
    assert len(ottla("consume", topic, "--max", "4").out.split()) == 4
    assert len(ottla("consume", topic, "--from", "-1").out.split()) == 3
    assert "has no partition 3" in ottla.fails(4, "consume", topic, "-p", "3").err
    assert "has no partition 9" in ottla.fails(4, "produce", topic, "--partition", "9", stdin=b"x\n").err


def test_a_topic_that_does_not_exist(ottla: Ottla, topic: str) -> None:
    assert "does not exist" in ottla.fails(4, "consume", topic).err
    assert "does not exist" in ottla.fails(4, "consume", topic, "--group", "g").err
    assert topic not in ottla("topic", "list").out


def test_a_broker_that_creates_no_topics_by_itself(ottla_process) -> None:  # type: ignore[no-untyped-def]
    ottla = Ottla(ottla_process({"auto.create.topics.enable": "false"}).bootstrap)
    assert "Unknown topic" in ottla.fails(4, "produce", "none", stdin=b"x\n").err


def test_follow_prints_messages_as_they_come_and_ends_on_a_signal(ottla: Ottla, topic: str) -> None:
    numbered(ottla, topic, 2)
    following = ottla.start("consume", topic, "--follow", "--from", "-1")
    assert line_of(following) == b"1\n"
    ottla("produce", topic, stdin=b"new\n")
    assert line_of(following) == b"new\n"
    following.send_signal(signal.SIGINT)
    out, err = following.communicate(timeout=60)
    assert (following.returncode, out, err) == (0, b"", b"")


def test_follow_ends_after_a_time_without_messages_or_after_so_many(ottla: Ottla, topic: str) -> None:
    numbered(ottla, topic)
    assert len(ottla("consume", topic, "--follow", "--timeout", "0.5").out.split()) == 10
    assert ottla("consume", topic, "--follow", "--max", "3").out.split() == ["0", "1", "2"]


def test_follow_says_when_its_broker_is_gone_and_when_it_is_back(ottla_process) -> None:  # type: ignore[no-untyped-def]
    broker = ottla_process()
    ottla = Ottla(broker.bootstrap)
    numbered(ottla, "t", 1)
    following = ottla.start("consume", "t", "--follow")
    assert line_of(following) == b"0\n"
    assert following.stderr is not None
    broker.kill()
    assert b"no broker can be reached" in following.stderr.readline()
    broker.start()
    ottla("produce", "t", stdin=b"new\n")
    assert line_of(following) == b"new\n"
    assert following.stderr.readline() == b"ottla: a broker is back\n"
    following.send_signal(signal.SIGINT)
    assert following.communicate(timeout=60) == (b"", b"")


def test_a_reader_that_goes_away_ends_it_quietly(ottla: Ottla, topic: str) -> None:
    numbered(ottla, topic, 50_000)
    consuming = ottla.start("consume", topic)
    assert line_of(consuming) == b"0\n"
    assert consuming.stdout is not None
    assert consuming.stderr is not None
    consuming.stdout.close()
    assert consuming.wait(60) == 128 + signal.SIGPIPE
    assert consuming.stderr.read() == b""
    consuming.stderr.close()


def test_typing_in_a_terminal_sends_each_line_at_once(ottla: Ottla, topic: str) -> None:
    ottla("topic", "create", topic)
    controller, terminal = os.openpty()
    process = ottla.start("produce", topic, stdin=terminal)
    os.close(terminal)
    os.write(controller, b"typed\n")
    wait_until(lambda: ottla("consume", topic).out == "typed\n")
    assert process.poll() is None
    os.write(controller, b"\x04")
    out, err = process.communicate(timeout=60)
    os.close(controller)
    assert (process.returncode, out, err) == (0, b"", b"")


def test_a_group_goes_on_where_it_was(ottla: Ottla, topic: str) -> None:
    numbered(ottla, topic, 5)
    group = f"{topic}-group"
    assert ottla("consume", topic, "--group", group, "--max", "2").out.split() == ["0", "1"]
    assert ottla("consume", topic, "--group", group).out.split() == ["2", "3", "4"]
    assert ottla("consume", topic, "--group", group).out == ""
    ottla("produce", topic, stdin=b"5\n")
    assert ottla("consume", topic, "--group", group).out.split() == ["5"]


def test_a_new_group_starts_at_the_beginning_or_where_it_is_told(ottla: Ottla, topic: str) -> None:
    numbered(ottla, topic, 3)
    assert ottla("consume", topic, "--group", f"{topic}-a").out.split() == ["0", "1", "2"]
    assert ottla("consume", topic, "--group", f"{topic}-b", "--from", "end").out == ""


def test_groups_are_described_with_their_lag(ottla: Ottla, topic: str) -> None:
    numbered(ottla, topic, 5)
    group = f"{topic}-group"
    ottla("consume", topic, "--group", group, "--max", "2")
    (found,) = ottla("group", "describe", group, "--json").json
    assert (found["state"], found["lag"], found["members"]) == ("Empty", 3, [])
    (partition,) = found["partitions"]
    assert partition["committed_offset"] == 2
    assert partition["end_offset"] == 5
    assert partition["lag"] == 3
    listed = {entry["group"]: entry for entry in ottla("group", "list", "--json").json}
    assert listed[group] == {"group": group, "state": "Empty", "type": "Classic"}
    head, columns, row = ottla("group", "describe", group).out.splitlines()
    assert head.startswith(f"{group}: Empty, 0 members, lag 3")
    assert columns.split()[:5] == ["TOPIC", "PARTITION", "COMMITTED", "END", "LAG"]
    assert row.split()[:5] == [topic, "0", "2", "5", "3"]


def test_a_group_with_members_cannot_be_moved_or_deleted(ottla: Ottla, topic: str) -> None:
    numbered(ottla, topic, 1)
    group = f"{topic}-group"
    member = ottla.start("consume", topic, "--group", group, "--follow")
    assert line_of(member) == b"0\n"
    (found,) = ottla("group", "describe", group, "--json").json
    assert found["state"] == "Stable"
    assert found["members"][0]["partitions"] == [f"{topic}-0"]
    assert found["partitions"][0]["client_id"] == "ottla-cli"
    assert f"{topic}-0" in ottla("group", "describe", group, "--members").out
    reset = ["group", "reset-offsets", group, "--topic", topic, "--to", "beginning", "--execute"]
    assert "stop its consumers first" in ottla.fails(1, *reset).err
    assert "stop its consumers first" in ottla.fails(1, "group", "delete", group).err
    member.terminate()
    member.communicate(timeout=60)
    assert member.returncode == 0
    ottla(*reset)
    assert ottla("group", "delete", group).out == f"{group}: deleted\n"
    ottla.fails(4, "group", "describe", group)


def offsets(ottla: Ottla, group: str) -> dict[int, int]:
    (found,) = ottla("group", "describe", group, "--json").json
    return {p["partition"]: p["committed_offset"] for p in found["partitions"]}


def test_offsets_are_moved_only_when_told(ottla: Ottla, topic: str) -> None:
    ottla("topic", "create", topic, "-p", "2")
    for partition in "01":
        ottla("produce", topic, "--partition", partition, stdin=b"a\nb\nc\nd\n")
    group = f"{topic}-group"
    ottla("consume", topic, "--group", group)
    assert offsets(ottla, group) == {0: 4, 1: 4}
    reset = ["group", "reset-offsets", group]
    dry = ottla.try_(*reset, "--all-topics", "--to", "beginning")
    assert (dry.code, dry.err) == (0, "ottla: nothing was changed; add --execute to do it\n")
    assert offsets(ottla, group) == {0: 4, 1: 4}

    def moved(*options: str) -> dict[int, int]:
        ottla(*reset, *options, "--execute")
        return offsets(ottla, group)

    assert ottla(*reset, "--all-topics", "--to", "1", "--execute").out.endswith(
        f"\n{group}: the new offsets are committed\n"
    )
    assert moved("--all-topics", "--to", "beginning") == {0: 0, 1: 0}
    assert moved("--topic", f"{topic}:1", "--to", "3") == {0: 0, 1: 3}
    assert moved("--topic", topic, "--shift", "2") == {0: 2, 1: 4}
    assert moved("--topic", topic, "--shift", "-3") == {0: 0, 1: 1}
    assert moved("--all-topics", "--to", "end") == {0: 4, 1: 4}
    assert moved("--all-topics", "--to", "-1") == {0: 3, 1: 3}
    assert moved("--all-topics", "--to", "1h") == {0: 0, 1: 0}
    document = ottla(*reset, "--all-topics", "--to", "100", "--execute", "--json").json
    assert document["executed"] is True
    assert [p["new_offset"] for p in document["partitions"]] == [4, 4]


def test_offsets_of_a_group_that_does_not_exist_yet(ottla: Ottla, topic: str) -> None:
    numbered(ottla, topic, 4)
    group = f"{topic}-new"
    ottla("group", "reset-offsets", group, "--topic", topic, "--to", "2", "--execute")
    assert ottla("consume", topic, "--group", group).out.split() == ["2", "3"]
    unknown = f"{topic}-unknown"
    assert (
        "has no offsets"
        in ottla.fails(4, "group", "reset-offsets", unknown, "--all-topics", "--to", "end").err
    )
    assert (
        "no offset for" in ottla.fails(4, "group", "reset-offsets", unknown, "-t", topic, "--shift", "1").err
    )
    ottla.fails(4, "group", "reset-offsets", group, "--topic", f"{topic}-none", "--to", "end")


def test_groups_that_do_not_exist(ottla: Ottla, topic: str) -> None:
    assert "does not exist" in ottla.fails(4, "group", "describe", topic).err
    ottla.fails(4, "group", "delete", topic)
    assert ottla("group", "delete", topic, "--if-exists").out == f"{topic}: does not exist\n"


def test_a_position_that_is_not_in_the_topic_is_explained(ottla: Ottla, topic: str) -> None:
    numbered(ottla, topic, 3)
    ran = ottla.try_("consume", topic, "--from", "999999999")
    assert (ran.code, ran.out) == (0, "")
    assert ran.err == f"ottla: {topic}-0 ends at offset 3, before 999999999: reading starts at the end\n"
    ran = ottla.try_("consume", topic, "--from", "2099-01-01T00:00:00Z")
    assert (ran.code, ran.out) == (0, "")
    assert ran.err == "ottla: no message is as new as 2099-01-01T00:00:00.000Z\n"
    assert ottla("consume", topic, "--from", "2").out == "2\n"
    several = f"{topic}-several"
    ottla("topic", "create", several, "-p", "5")
    ran = ottla.try_("consume", several, "--offset", "7", "-p", "1-3")
    assert ran.err == (
        f"ottla: {several}-1 ends at offset 0 (and 2 other partitions likewise), before 7: "
        "reading starts at the end\n"
    )


def test_topics_are_chosen_by_a_regular_expression(ottla: Ottla, topic: str) -> None:
    for name in ("a1", "a2", "b"):
        ottla("produce", f"{topic}.{name}", stdin=f"{name}\n".encode())
    name = topic.replace("-", "[-]")
    assert sorted(ottla("consume", rf"{name}\..\d", "--regex").out.split()) == ["a1", "a2"]
    assert "no topic matches" in ottla.fails(4, "consume", rf"{name}\.", "-r").err
    assert sorted(ottla("consume", rf"^{name}\.(a2|b)", "--format", "{topic}").out.split()) == [
        f"{topic}.a2",
        f"{topic}.b",
    ]
    group = ["--group", f"{topic}-group"]
    assert sorted(ottla("consume", f"{name}.*", "-r", *group).out.split()) == ["a1", "a2", "b"]
    assert "no topic matches" in ottla.fails(4, "consume", f"^{topic}-none").err
    assert "not a regular expression" in ottla.fails(2, "consume", "a(", "-r").err
    assert "no topic matches" in ottla.fails(4, "consume", "__consumer_offsets", "-r").err


def test_follow_finds_topics_that_come_later(ottla: Ottla, topic: str) -> None:
    ottla("produce", f"{topic}.1", stdin=b"first\n")
    following = ottla.start("consume", f"^{topic}", "--follow")
    assert line_of(following) == b"first\n"
    ottla("produce", f"{topic}.2", stdin=b"second\n")
    assert line_of(following) == b"second\n"
    following.send_signal(signal.SIGINT)
    assert following.communicate(timeout=60) == (b"", b"")


@pytest.mark.parametrize(
    "assignment",
    ["00", "00037fffffffabcd", "0000000000017fff", "000000000001000474657374ffffffff",
     "0000000000010002c3280000000100000000ffffffff"],
)  # fmt: skip
def test_a_member_with_a_garbage_assignment_is_described(ottla: Ottla, topic: str, assignment: str) -> None:
    """librdkafka's assertion about it would end the process."""
    group = f"g-{topic}"
    join_with(ottla.bootstrap, group, bytes.fromhex(assignment))
    (found,) = ottla("group", "describe", group, "--json").json
    assert (found["state"], found["type"], found["assignor"]) == ("Stable", "Classic", "range")
    assert [member["partitions"] for member in found["members"]] == [None]
    assert "(not a consumer's)" in ottla("group", "describe", group, "--members").out
    assert "1 member" in ottla.fails(1, "group", "reset-offsets", group, "-t", "t", "--to", "end").err


def join_with(bootstrap: str, group: str, assignment: bytes) -> None:
    """Join a group that nobody else is in, and assign these bytes."""
    host, _, port = bootstrap.rpartition(":")
    connection = DirectConnection((host, int(port)))
    join = {
        "group_id": group,
        "session_timeout_ms": 60_000,
        "rebalance_timeout_ms": 60_000,
        "member_id": "",
        "group_instance_id": None,
        "protocol_type": "consumer",
        "protocols": [{"name": "range", "metadata": b"\xff"}],
        "reason": None,
    }
    # This, and no other request about a group, makes the topic of groups where it is the first of its broker.
    connection.ask("FindCoordinator", {"key_type": 0, "coordinator_keys": [group]})
    wait_until(lambda: connection.ask("JoinGroup", join).error_code == ErrorCode.member_id_required)
    join["member_id"] = connection.ask("JoinGroup", join).member_id
    joined = connection.ask("JoinGroup", join)
    assert joined.error_code == 0
    synced = connection.ask(
        "SyncGroup",
        {
            "group_id": group,
            "generation_id": joined.generation_id,
            "member_id": join["member_id"],
            "group_instance_id": None,
            "protocol_type": "consumer",
            "protocol_name": "range",
            "assignments": [{"member_id": join["member_id"], "assignment": assignment}],
        },
    )
    assert synced.error_code == 0
    connection.close()


def test_a_header_whose_name_is_no_text_disturbs_nobody_who_does_not_ask(ottla: Ottla, topic: str) -> None:
    ottla("topic", "create", topic)
    host, _, port = ottla.bootstrap.rpartition(":")
    connection = DirectConnection((host, int(port)))
    batch = build_batch([Record(0, 1_700_000_000_000, None, b"v", [("name", b"x")])]).replace(
        b"name", b"na\xffe"
    )
    head = batch[:17] + crc32c(batch[21:]).to_bytes(4, "big") + batch[21:]
    partition = {"index": 0, "records": head}
    produced = connection.ask(
        "Produce",
        {
            "transactional_id": None,
            "acks": -1,
            "timeout_ms": 5000,
            "topic_data": [{"name": topic, "partition_data": [partition]}],
        },
        version=9,
    )
    assert produced.responses[0].partition_responses[0].error_code == 0
    assert ottla("consume", topic).out == "v\n"
    assert "offset 0: the name of a header is not UTF-8" in ottla.fails(1, "consume", topic, "--json").err
