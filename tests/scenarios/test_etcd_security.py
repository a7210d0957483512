"""etcd that is reached by TLS, and that asks who one is; and what is said where that does not work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from etcd_support import EtcdCluster, Tls, namespace
from ottla.env.clock import SystemClock
from ottla.metadata.store import MetadataStore, Put, StoreError
from ottla.metadata.stores import open_store

TIMEOUT_S = 60.0
# Tokens of etcd live so many seconds after their last use.
TOKEN_S = 2


def run(body: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(body, TIMEOUT_S))


@asynccontextmanager
async def opened(url: str, cluster: str | None = None) -> AsyncIterator[MetadataStore]:
    store = await open_store(url, cluster=cluster or namespace(), clock=SystemClock())
    try:
        yield store
    finally:
        await store.close()


async def put(store: MetadataStore, key: str, value: bytes, lease: int = 0) -> int:
    return (await store.txn([], [Put(key, value, lease)])).revision


def certify(folder: Path, name: str, issued: trustme.LeafCert) -> tuple[Path, Path]:
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    return cert, key


# ------------------------------------------------------------ TLS


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ca.pem, server.pem and .key, client.pem and .key; other-ca.pem, which signed none of them."""
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    certify(folder, "server", authority.issue_cert("127.0.0.1", "localhost"))
    certify(folder, "client", authority.issue_cert("node@example.org"))
    trustme.CA().cert_pem.write_to_path(folder / "other-ca.pem")
    return folder


@pytest.fixture(scope="module")
def tls(files: Path) -> Iterator[EtcdCluster]:
    asked = Tls(files / "ca.pem", files / "server.pem", files / "server.key", client_auth=True)
    with EtcdCluster(1, tls=asked) as cluster:
        yield cluster


def test_both_sides_show_certificates(tls: EtcdCluster, files: Path) -> None:
    async def body() -> None:
        query = f"ca={files}/ca.pem&cert={files}/client.pem&key={files}/client.key"
        async with opened(tls.url(query=query)) as store:
            lost: list[str] = []
            start = await put(store, "a", b"1")
            lease = await store.lease_grant(2_000)
            await store.lease_hold(lease, lambda: lost.append("lost"))
            await put(store, "b", b"", lease)
            async for batch in store.watch("", start):
                assert batch.events[0] == ("a", b"1", start)
                break
            # The lease's own connection is encrypted, too.
            await asyncio.sleep(2.5)
            assert await store.get("b") is not None
            assert not lost

    run(body())


@pytest.mark.parametrize(
    ("query", "scheme"),
    [
        ("ca={files}/ca.pem", "etcds"),
        ("ca={files}/other-ca.pem&cert={files}/client.pem&key={files}/client.key", "etcds"),
        ("cert={files}/client.pem&key={files}/client.key", "etcds"),
        ("", "etcd"),
    ],
    ids=["no certificate", "another authority", "the system's authorities", "no TLS"],
)
def test_without_the_right_certificates_nothing_works(
    tls: EtcdCluster, files: Path, query: str, scheme: str
) -> None:
    async def body() -> None:
        more = query.format(files=files)
        url = tls.url(scheme=scheme, query="&".join(part for part in (more, "timeout-ms=600") if part))
        async with opened(url) as store:
            with pytest.raises(StoreError):
                await store.get("a")

    run(body())


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    async def body() -> None:
        for query in ("ca", "password-file"):
            scheme = "etcds" if query == "ca" else "etcd"
            user = "" if query == "ca" else "user=u&"
            with pytest.raises(StoreError, match="missing"):
                await open_store(
                    f"{scheme}://h?{user}{query}={tmp_path}/missing", cluster="c", clock=SystemClock()
                )

    run(body())


# ------------------------------------------------------------ users


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[EtcdCluster, Path]]:
    """etcd with the users root and ottla, who may only use /ottla/; and a folder with their passwords."""
    folder = tmp_path_factory.mktemp("users")
    for user in ("root", "ottla"):
        (folder / user).write_text(f"secret-of-{user}\n")
    (folder / "wrong").write_text("wrong")
    with EtcdCluster(1, extra=["--auth-token-ttl", str(TOKEN_S), "--bcrypt-cost", "4"]) as cluster:
        cluster.ctl("user", "add", "root:secret-of-root")
        cluster.ctl("user", "add", "ottla:secret-of-ottla")
        cluster.ctl("role", "add", "ottla")
        cluster.ctl("role", "grant-permission", "ottla", "--prefix=true", "readwrite", "/ottla/")
        cluster.ctl("user", "grant-role", "ottla", "ottla")
        cluster.ctl("user", "grant-role", "root", "root")
        cluster.ctl("auth", "enable")
        yield cluster, folder


def test_a_user_is_known_by_a_password(guarded: tuple[EtcdCluster, Path]) -> None:
    async def body() -> None:
        etcd, folder = guarded
        async with opened(etcd.url(query=f"user=ottla&password-file={folder}/ottla")) as store:
            # All at once, when there is no token yet.
            await asyncio.gather(*(put(store, f"k{number}", b"") for number in range(20)))
            assert len((await store.range("")).items) == 20

    run(body())


def test_a_watch_may_be_the_first_that_is_asked_for(guarded: tuple[EtcdCluster, Path]) -> None:
    async def body() -> None:
        etcd, folder = guarded
        url, name = etcd.url(query=f"user=ottla&password-file={folder}/ottla"), namespace()
        async with opened(url, name) as store, opened(url, name) as other:
            start = await put(other, "a", b"1")
            async for batch in store.watch("", start):
                assert batch.events == (("a", b"1", start),)
                break

    run(body())


def test_tokens_are_renewed(guarded: tuple[EtcdCluster, Path]) -> None:
    """They end when they are not used, and etcd forgets them when it is started again."""

    async def body() -> None:
        etcd, folder = guarded
        lost: list[str] = []
        events: list[bytes | None] = []
        async with opened(etcd.url(query=f"user=ottla&password-file={folder}/ottla")) as store:
            start = await put(store, "a", b"1")

            async def follow() -> None:
                async for batch in store.watch("", start):
                    events.extend(event.value for event in batch.events)

            following = asyncio.create_task(follow())
            lease = await store.lease_grant(2_000)
            await store.lease_hold(lease, lambda: lost.append("lost"))
            await put(store, "b", b"2", lease)
            await asyncio.sleep(TOKEN_S + 1)
            await put(store, "a", b"3")
            etcd.kill_all()
            await asyncio.to_thread(etcd.start)
            await asyncio.gather(*(put(store, "a", b"4") for _ in range(3)))
            while b"4" not in events:
                await asyncio.sleep(0.01)
            assert events[:3] == [b"1", b"2", b"3"]
            assert await store.get("b") is not None
            assert not lost
            following.cancel()

    run(body())


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("user=ottla&password-file={folder}/wrong", "invalid user ID or password"),
        ("user=nobody&password-file={folder}/ottla", "invalid user ID or password"),
        ("", r"add \?user="),
    ],
    ids=["a wrong password", "nobody", "no user"],
)
def test_who_is_not_known_is_told_so(guarded: tuple[EtcdCluster, Path], query: str, message: str) -> None:
    async def body() -> None:
        etcd, folder = guarded
        async with opened(etcd.url(query=query.format(folder=folder))) as store:
            with pytest.raises(StoreError, match=message):
                await store.get("a")
            with pytest.raises(StoreError, match=message):
                await put(store, "a", b"")
            with pytest.raises(StoreError, match=message):
                await anext(store.watch("", 1))

    run(body())


def test_who_may_not_use_the_keys_is_told_so(guarded: tuple[EtcdCluster, Path]) -> None:
    async def body() -> None:
        etcd, folder = guarded
        root = {"ETCDCTL_USER": "root:secret-of-root"}
        etcd.ctl("user", "add", "guest:secret-of-ottla", environment=root)
        async with opened(etcd.url(query=f"user=guest&password-file={folder}/ottla")) as store:
            with pytest.raises(StoreError, match="permission denied"):
                await put(store, "a", b"")
            with pytest.raises(StoreError, match="permission denied"):
                await anext(store.watch("", 1))

    run(body())


def test_a_watch_without_a_token_waits_for_etcd(guarded: tuple[EtcdCluster, Path]) -> None:
    """It needs one first, and who could give it is away."""

    async def body() -> None:
        etcd, folder = guarded
        url, name = etcd.url(query=f"user=ottla&password-file={folder}/ottla&timeout-ms=600"), namespace()
        async with opened(url, name) as store, opened(url, name) as other:
            start = await put(other, "a", b"1")
            etcd.kill_all()
            batches = store.watch("", start)
            first = asyncio.ensure_future(anext(batches))
            await asyncio.sleep(2)
            assert not first.done()
            await asyncio.to_thread(etcd.start)
            assert (await first).events == (("a", b"1", start),)

    run(body())


def test_a_user_does_no_harm_where_none_is_asked_for(guarded: tuple[EtcdCluster, Path]) -> None:
    """Users can be named before etcd is told to ask for them."""

    async def body() -> None:
        _, folder = guarded
        with EtcdCluster(1) as etcd:
            async with opened(etcd.url(query=f"user=ottla&password-file={folder}/ottla")) as store:
                start = await put(store, "a", b"1")
                await anext(store.watch("", start))
                await store.lease_hold(await store.lease_grant(2_000), lambda: None)

    run(body())
