"""URLs of metadata stores, what they import, and what errors of etcd mean."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from ottla.env.clock import SystemClock
from ottla.metadata.etcd_client import Verdict, judge
from ottla.metadata.etcd_connection import Code
from ottla.metadata.etcd_settings import EtcdSettings
from ottla.metadata.stores import open_store, parse_store


def test_a_url_names_hosts_and_how_to_reach_them() -> None:
    assert parse_store("etcd://h1:1,h2,[::1]:3,[fe80::1],h2", "c") == EtcdSettings(
        endpoints=("h1:1", "h2:2379", "[::1]:3", "[fe80::1]:2379"), cluster="c"
    )
    assert parse_store(
        "etcds://h/?ca=%2Fa%20b&cert=c&key=k&user=u&password-file=p&timeout-ms=300", "x.y-z"
    ) == EtcdSettings(
        endpoints=("h:2379",),
        cluster="x.y-z",
        tls=True,
        ca="/a b",
        cert="c",
        key="k",
        user="u",
        password_file="p",
        timeout_ms=300,
    )


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "write etcd://HOST:PORT"),
        ("h1:2379", "write etcd://HOST:PORT"),
        ("http://h1:2379", "write etcd://HOST:PORT"),
        ("etcd://", "'' is no HOST:PORT"),
        ("etcd://h1,,h2", "'' is no HOST:PORT"),
        ("etcd://h1:port", "'h1:port' is no HOST:PORT"),
        ("etcd://:2379", "':2379' is no HOST:PORT"),
        ("etcd://::1", "'::1' is no HOST:PORT"),
        ("etcd://h1,[::1", "'[::1' is no HOST:PORT"),
        ("etcd:h1", "write etcd://HOST:PORT"),
        ("etcd://h1:0", "'h1:0' is no HOST:PORT"),
        ("etcd://h1:65536", "'h1:65536' is no HOST:PORT"),
        ("etcd://h1/name", "name the cluster apart"),
        ("etcd://h1#x", "name the cluster apart"),
        ("etcd://[[::1]]", "'[[::1]]' is no HOST:PORT"),
        ("etcd://h1]", "'h1]' is no HOST:PORT"),
        ("etcd://[]", "'[]' is no HOST:PORT"),
        ("etcd://u:secret@h1", "password-file=FILE"),
        ("etcd://u:secret/@h1", "password-file=FILE"),
        ("etcd://u:secret#@h1", "password-file=FILE"),
        ("etcd://u:secret%40h1", "password-file=FILE"),
        ("etcd://u:secret?@h1", "'etcd://...@h1': write ?NAME=VALUE"),
        ("etcd:u:secret@h1", "'...@h1': write etcd://HOST:PORT"),
        ("http://u:secret@h1", "'http://...@h1': write etcd://HOST:PORT"),
        ("etcd://h1?ca=x", "write etcds://"),
        ("etcds://h1?cert=x", "cert and key go together"),
        ("etcds://h1?key=x", "cert and key go together"),
        ("etcd://h1?user=x", "user and password-file go together"),
        ("etcd://h1?password-file=x", "user and password-file go together"),
        ("etcd://h1?user=x&password=y", "no parameter 'password'"),
        ("etcd://h1?timeout-ms=1&timeout-ms=2", "needs one value"),
        ("etcds://h1?ca=", "needs one value"),
        ("etcd://h1?nothing", "NAME=VALUE"),
        ("etcd://h1?timeout-ms=299", "milliseconds"),
        ("etcd://h1?timeout-ms=1s", "milliseconds"),
        ("etcd://h1?timeout-ms=-1", "milliseconds"),
    ],
)
def test_a_bad_url_is_refused_with_what_to_write(url: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_store(url, "c")
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("cluster", ["", "a/b", "a\0"])
def test_a_cluster_has_a_name_that_fits_into_a_key(cluster: str) -> None:
    with pytest.raises(ValueError, match="cluster"):
        parse_store("etcd://h", cluster)


def test_a_store_is_opened_without_asking_it() -> None:
    async def body() -> None:
        store = await open_store("etcd://127.0.0.1:1", cluster="c", clock=SystemClock())
        await store.close()

    asyncio.run(body())


def test_what_only_etcd_needs_is_not_imported_before_there_is_one() -> None:
    """It costs 8 MB and 60 ms, which a node by itself need not pay."""
    program = (
        "import sys, ottla.process, ottla.cli.main, ottla.metadata.stores; "
        "print([name for name in sys.modules if name.split('.')[0] in ('h2', 'google')])"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"


CODE = Code


@pytest.mark.parametrize(
    ("code", "details", "verdict"),
    [
        (CODE.UNAVAILABLE, "failed to connect: x", Verdict.NOT_DONE),
        (CODE.UNAVAILABLE, "etcdserver: no leader", Verdict.NOT_DONE),
        (CODE.RESOURCE_EXHAUSTED, "etcdserver: too many requests", Verdict.NOT_DONE),
        (CODE.UNAVAILABLE, "Socket closed", Verdict.UNKNOWN),
        (CODE.UNAVAILABLE, "etcdserver: request timed out", Verdict.UNKNOWN),
        (CODE.UNAVAILABLE, "etcdserver: leader changed", Verdict.UNKNOWN),
        (CODE.UNAVAILABLE, "some day: failed to connect", Verdict.UNKNOWN),
        (CODE.DEADLINE_EXCEEDED, "Deadline Exceeded", Verdict.UNKNOWN),
        (CODE.UNKNOWN, "", Verdict.UNKNOWN),
        (CODE.UNAUTHENTICATED, "etcdserver: invalid auth token", Verdict.TOKEN),
        (CODE.INVALID_ARGUMENT, "etcdserver: revision of auth store is old", Verdict.TOKEN),
        (CODE.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded", Verdict.REFUSED),
        (CODE.INVALID_ARGUMENT, "etcdserver: request is too large", Verdict.REFUSED),
        (CODE.NOT_FOUND, "etcdserver: requested lease not found", Verdict.REFUSED),
    ],
)
def test_in_doubt_a_call_may_have_been_done(code: Code, details: str, verdict: Verdict) -> None:
    assert judge(code, details) is verdict
