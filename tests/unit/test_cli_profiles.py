"""Profiles: how to connect, under a name; and whoever says how to connect besides."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from ottla.cli import profiles
from ottla.cli.app import app_of, run
from ottla.cli.client_properties import FILE_VARIABLE
from ottla.cli.errors import CliError, ExitCode
from ottla.config.properties import parse_properties


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where profiles are, and no environment that says anything."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name in ("OTTLA_BOOTSTRAP", FILE_VARIABLE, profiles.VARIABLE):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "ottla"


def settled(*words: str, group: str = "topic", name: str = "list") -> dict[str, Any]:
    """What a command would be called with."""
    command: Any = typer.main.get_command(app_of(group))
    command = command.commands[group]
    command = command.commands[name] if hasattr(command, "commands") else command
    context = command.make_context(name, list(words))
    pairs = dict(pair.split("=", 1) for pair in context.params["property"])
    return {"bootstrap": context.params["bootstrap"], **pairs, "params": context.params}


def where(*words: str) -> str:
    return str(settled(*words)["bootstrap"])


def refused(*words: str) -> CliError:
    with pytest.raises(CliError) as caught:
        run(list(words))
    return caught.value


def test_an_option_beats_the_environment_which_beats_the_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    assert where() == "127.0.0.1:9092"
    profiles.write("dev", {"bootstrap.servers": "dev:1"})
    profiles.write("prod", {"bootstrap.servers": "prod:1"})
    assert where() == "127.0.0.1:9092"
    profiles.use("dev")
    assert where() == "dev:1"
    monkeypatch.setenv(profiles.VARIABLE, "prod")
    assert where() == "prod:1"
    monkeypatch.setenv("OTTLA_BOOTSTRAP", "environment:1")
    assert where() == "environment:1"
    assert where("--profile", "dev") == where("--profile=dev") == "dev:1"
    assert where("--profile", "dev", "-b", "option:1") == "option:1"
    assert where("--profile", "dev", "-X", "bootstrap.servers=property:1") == "property:1"
    assert where("-X", "brokers=rpk:1") == "rpk:1"


def test_properties_of_all_who_give_some(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("environment", "option"):
        text = f"sasl.username={name}\n{name}=1\nsasl.mechanism=PLAIN\n"
        (tmp_path / name).write_text(text)
    profiles.write("dev", {"sasl.username": "profile", "profile": "1", "sasl.mechanism": "SCRAM-SHA-256"})
    profiles.use("dev")
    monkeypatch.setenv(FILE_VARIABLE, str(tmp_path / "environment"))
    found = settled()
    assert (found["sasl.username"], found["profile"], found["environment"]) == ("environment", "1", "1")
    assert found["sasl.mechanisms"] == "PLAIN"
    file = ("--command-config", str(tmp_path / "option"))
    assert settled(*file)["sasl.username"] == "option"
    assert settled(*file, "-X", "user=me", "-X", "sasl.mechanisms=X")["sasl.username"] == "me"
    named = settled("--profile", "dev")
    assert named["sasl.username"] == "profile" and "environment" not in named


def test_a_login_of_an_option_is_not_one_by_the_token_of_a_profile() -> None:
    jaas = "a.ScramLoginModule required username=t password=h tokenauth=true;"
    profiles.write("dev", {"sasl.jaas.config": jaas})
    assert settled("--profile", "dev")["ottla.tokenauth"] == "true"
    found = settled("--profile", "dev", "-X", "sasl.username=alice", "-X", "sasl.password=p")
    assert found["sasl.username"] == "alice" and "ottla.tokenauth" not in found


def test_a_profile_has_defaults_of_options() -> None:
    run(["profile", "create", "fast", "-b", "h:1", "--default", "compression=zstd", "--default", "acks=1"])
    made = settled("--profile", "fast", "t", group="produce", name="produce")["params"]
    assert (made["compression"], made["acks"]) == ("zstd", "1")
    made = settled("--profile", "fast", "t", "-z", "lz4", group="produce", name="produce")["params"]
    assert made["compression"] == "lz4"
    assert settled("--profile", "fast")["bootstrap"] == "h:1"
    assert "defaults of these options" in str(refused("profile", "create", "x", "--default", "execute=true"))


def test_a_file_is_for_its_owner_alone_and_replaced_whole(folder: Path) -> None:
    run(["profile", "create", "dev", "-b", "h:1", "-X", "sasl.password=secret word"])
    path = folder / "profiles" / "dev.properties"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert refused("profile", "create", "dev", "-b", "h:2").code is ExitCode.EXISTS
    run(["profile", "create", "dev", "-b", "h:2", "--replace"])
    assert path.read_text() == "bootstrap.servers=h:2\n"
    assert [one.name for one in path.parent.iterdir()] == ["dev.properties"]


SECRETS = {
    "sasl.password": "tell1",
    "ssl.key.password": "tell2",
    "sasl.jaas.config": "a required username=u password=tell3;",
    "ssl.key.pem": "tell4",
    "ssl.keystore.key": "tell5",
    "sasl.oauthbearer.client.secret": "tell6",
}


def test_secrets_are_never_shown(capsys: pytest.CaptureFixture[str]) -> None:
    profiles.write("dev", {"bootstrap.servers": "h:1", "sasl.username": "alice", **SECRETS})
    for words in ("show dev", "show dev --json", "list", "use dev", "show", "current --json", "delete dev"):
        run(["profile", *words.split()])
    said = capsys.readouterr()
    assert "tell" not in said.out + said.err and "alice" in said.out
    assert said.out.count(profiles.HIDDEN) == 3 * len(SECRETS)


def test_profiles_are_listed_chosen_and_deleted(capsys: pytest.CaptureFixture[str]) -> None:
    run(["profile", "create", "dev", "-b", "h:1", "--use"])
    run(["profile", "create", "prod", "-b", "h:2"])
    capsys.readouterr()
    run(["profile", "list", "--json"])
    assert json.loads(capsys.readouterr().out) == [
        {"profile": "dev", "bootstrap": "h:1", "current": True},
        {"profile": "prod", "bootstrap": "h:2", "current": False},
    ]
    run(["profile", "delete", "dev"])
    run(["profile", "current"])
    said = capsys.readouterr()
    assert said.out.splitlines()[-1] == "default" and "commands use no profile" in said.err
    assert where() == "127.0.0.1:9092"
    run(["profile", "use", "prod"])
    run(["profile", "use", "default"])
    assert where() == "127.0.0.1:9092"


def test_what_is_no_profile_is_said() -> None:
    missing = refused("topic", "list", "--profile", "nope")
    assert missing.code is ExitCode.NOT_FOUND
    assert "profile 'nope' does not exist; there are no profiles: 'ottla profile create'" in str(missing)
    profiles.write("dev", {"bootstrap.servers": "127.0.0.1:1"})
    assert "there are: dev" in str(refused("profile", "use", "nope"))
    for name in ("../x", ".x", "-x", "a/b", "", "x" * 65):
        assert refused("profile", "create", "--bootstrap=h:1", "--", name).code is ExitCode.USAGE
    unreachable = refused("topic", "list", "--profile", "dev")
    assert unreachable.code is ExitCode.UNREACHABLE and str(unreachable).endswith("(profile 'dev')")


def test_a_current_profile_that_is_gone_is_said_with_what_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(profiles.VARIABLE, "gone")
    assert "(named by OTTLA_PROFILE)" in str(refused("topic", "list"))
    assert run(["topic", "list", "--help"]) == ExitCode.OK


@pytest.mark.parametrize("content", [b"sasl.password=\\uXYZ1", b"\0" * 2_000_000])
def test_a_broken_file_is_an_error_that_names_it(folder: Path, content: bytes) -> None:
    path = profiles.write("dev", {})
    path.write_bytes(content)
    said = str(refused("topic", "list", "--profile", "dev"))
    assert str(path) in said and "XYZ" not in said
    (folder / "profile").write_bytes(b"\xff\xfe\n")
    assert "it does not name a profile" in str(refused("topic", "list"))
    (folder / "profile").unlink()
    (folder / "profile").mkdir()
    assert str(folder / "profile") in str(refused("topic", "list"))


def test_a_folder_that_is_none_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "ottla").write_text("")
    assert str(tmp_path / "ottla") in str(refused("profile", "create", "dev", "-b", "h:1"))
    assert where() == "127.0.0.1:9092"


def test_others_who_can_read_a_secret_are_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    path = profiles.write("dev", {"sasl.password": "x"})
    path.chmod(0o640)
    settled("--profile", "dev")
    assert f"other users of this machine can read {path}" in capsys.readouterr().err


def test_an_editor_changes_a_profile_or_leaves_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = profiles.write("dev", {"bootstrap.servers": "h:1"})
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nprintf \'%s\\n\' "$TEXT" > "$1"\n')
    editor.chmod(0o700)
    monkeypatch.setenv("VISUAL", str(editor))
    monkeypatch.setenv("TEXT", "bootstrap.servers=h:2")
    run(["profile", "edit", "dev"])
    assert path.read_text() == "bootstrap.servers=h:2\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    monkeypatch.setenv("TEXT", "bootstrap.servers=not a host")
    assert "the profile is as it was, and your text is in" in str(refused("profile", "edit", "dev"))
    assert path.read_text() == "bootstrap.servers=h:2\n"
    monkeypatch.setenv("VISUAL", "false")
    assert "ended with code 1" in str(refused("profile", "edit", "dev"))


@given(st.dictionaries(st.text(min_size=1), st.text()))
def test_what_is_written_is_read(properties: dict[str, str]) -> None:
    lines = [
        f"{profiles._escaped(key, ' =:#!')}={profiles._escaped(value, '')}\n"
        for key, value in properties.items()
    ]
    assert parse_properties("".join(lines)) == properties


def leaves(command: Any, path: str) -> Any:
    if not hasattr(command, "commands"):
        yield path, {parameter.name for parameter in command.params}
        return
    for name, one in command.commands.items():
        yield from leaves(one, f"{path} {name}")


def test_every_command_that_talks_to_a_cluster_has_these_options() -> None:
    found = [names for _, names in leaves(typer.main.get_command(app_of()), "ottla") if "bootstrap" in names]
    assert len(found) > 40
    for names in found:
        assert names >= {"property", "command_config", "profile"}


def test_the_names_of_rpk_are_written_as_others_and_hidden_where_they_stand(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(["profile", "create", "dev", "-X", "brokers=a:1", "-X", "user=me", "-X", "pass=geheim"])
    found = profiles.read("dev")
    assert found.properties == {"bootstrap.servers": "a:1", "sasl.username": "me", "sasl.password": "geheim"}
    found.path.write_text("pass=geheim\nssl.key.passphrase=geheim\n")
    for words in (["show", "dev"], ["show", "dev", "--json"], ["list", "--json"]):
        run(["profile", *words])
    assert "geheim" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("editor", "error"),
    [
        ("'", "No closing quotation"),
        (" ", "names no program"),
        ("/nowhere/editor", "no such file"),
        ("false", "ended with code 1"),
    ],
)
def test_an_editor_that_fails_leaves_no_copy_of_secrets(
    editor: str, error: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(["profile", "create", "dev", "-X", "sasl.password=x"])
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", editor)
    assert error in str(refused("profile", "edit", "dev"))
    assert [one.name for one in (folder / "profiles").iterdir()] == ["dev.properties"]


def test_an_edited_profile_is_for_its_owner_alone_whatever_the_editor_did(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = profiles.write("dev", {})
    # Latin-1, as Java writes it, stays as it is.
    path.write_bytes(b"sasl.password=\xe4\n")
    monkeypatch.setenv("VISUAL", """sh -c 'cat "$0" >"$0".x; chmod 644 "$0".x; mv "$0".x "$0"'""")
    run(["profile", "edit", "dev"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_bytes() == b"sasl.password=\xe4\n"


def test_what_is_no_file_is_not_waited_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profiles.write("dev", {})
    (folder / "profiles" / "pipe.properties").symlink_to("/dev/zero")
    monkeypatch.setenv("VISUAL", "true")
    assert "it is no file" in str(refused("profile", "edit", "pipe"))
    (folder / "profile").write_bytes(b"\xff")
    run(["profile", "delete", "dev"])
    assert profiles.names() == ["pipe"]
