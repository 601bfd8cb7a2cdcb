"""The commands about keys, with a shared store and with a running gateway that keeps them in memory."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.__main__ import main
from tests.redis_servers import RedisServer, redis_server
from tests.whole_gateway import Json, configuration, key_settings

NOWHERE = "http://127.0.0.1:1/v1"


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server(tcp=True) as server:
        yield server


class Shell:
    """Runs `gateway` with one configuration, over an empty Redis."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def run(self, *words: str, given: str | None = None) -> Result:
        position = 2 if words[0] == "keys" else 1
        arguments = [*words[:position], "-c", str(self.file), *words[position:]]
        return CliRunner().invoke(main, arguments, input=given, terminal_width=200)

    def json(self, *words: str) -> Json:
        result = self.run(*words, "--json")
        assert result.exit_code == 0, result.output
        found: Json = json.loads(result.stdout)
        return found


@pytest.fixture
def shell(server: RedisServer, tmp_path: Path) -> Shell:
    with contextlib.closing(server.client()) as client:
        client.flushall()
    file = tmp_path / "gateway.yaml"
    file.write_text(json.dumps(configuration(NOWHERE, store={"url": server.url})))
    return Shell(file)


def test_a_key_is_printed_once_and_its_hash_alone_is_kept(shell: Shell, server: RedisServer) -> None:
    result = shell.run("keys", "create", "--team", "search", "--name", "batch", "--metadata", "owner=alice")
    assert result.exit_code == 0
    secret = result.stdout.splitlines()[-1]
    key_id = hashlib.sha256(secret.encode()).hexdigest()[:12]
    assert "shown this once" in result.stderr
    shown = shell.run("keys", "show", key_id).stdout
    assert "owner=alice" in shown
    assert "active" in shown
    with contextlib.closing(server.client()) as client:
        kept = b"".join(repr(client.dump(name)).encode() for name in client.scan_iter())
    assert secret.encode() not in kept
    for words in (("keys", "list"), ("keys", "export"), ("audit",)):
        assert secret not in shell.run(*words).output


def test_what_is_asked_for_is_what_the_key_has(shell: Shell) -> None:
    options = ("--limit", "requests=60/minute", "--limit", "tokens=2_000_000/day", "--limit", "concurrent=8")
    more = ("--models", "openai/*", "--network", "10.0.0.0/8", "--network", "192.0.2.1", "--expires", "90d")
    key = shell.json("keys", "create", "--team", "search", "--name", "k", *options, *more)
    assert key["limits"] == [
        {"name": "requests-per-minute", "requests": 60, "per": "minute"},
        {"name": "tokens-per-day", "tokens": 2_000_000, "per": "day"},
        {"name": "concurrent", "concurrent": 8},
    ]
    assert (key["models"], key["networks"]) == (["openai/*"], ["10.0.0.0/8", "192.0.2.1/32"])
    assert key.pop("key").startswith("gw_")
    assert shell.json("keys", "show", key["id"]) == key


def test_the_life_of_a_key_is_in_the_audit(shell: Shell) -> None:
    key_id = shell.json("keys", "create", "--team", "search", "--name", "k")["id"]
    assert shell.json("keys", "disable", key_id)["status"] == "disabled"
    assert shell.json("keys", "enable", key_id)["status"] == "active"
    new = shell.json("keys", "rotate", key_id, "--overlap", "1h")
    assert (new["rotated_from"], new["name"]) == (key_id, "k")
    assert shell.json("keys", "revoke", new["id"])["status"] == "revoked"
    entries = shell.json("audit")["data"]
    done = ["key.revoke", "key.rotate", "key.enable", "key.disable", "key.create"]
    assert [entry["action"] for entry in entries] == done
    assert {entry["actor"].partition(",")[0] for entry in entries} == {"the command line"}
    assert (entries[3]["before"]["status"], entries[3]["after"]["status"]) == ("active", "disabled")
    assert [entry["action"] for entry in shell.json("audit", "--last", "2")["data"]] == done[:2]
    table = shell.run("audit").stdout
    assert '"status": "disabled"' in table
    assert len(table.splitlines()) == 6


def test_a_key_is_changed_by_what_is_named_and_nothing_else(shell: Shell) -> None:
    options = (
        "--limit",
        "requests=60/minute",
        "--expires",
        "90d",
        "--metadata",
        "owner=alice",
        "--network",
        "10.0.0.0/8",
    )
    made = shell.json("keys", "create", "--team", "search", "--name", "k", *options)
    more = ("--limit", "requests=120/minute", "--limit", "concurrent=2", "--name", "other")
    changed = shell.json("keys", "change", made["id"], *more, "--clear", "expires", "--clear", "networks")
    assert changed["limits"] == [
        {"name": "requests-per-minute", "requests": 120, "per": "minute"},
        {"name": "concurrent", "concurrent": 2},
    ]
    assert (changed["name"], changed["expires_at"], changed["networks"]) == ("other", None, [])
    assert (changed["metadata"], changed["models"]) == ({"owner": "alice"}, made["models"])
    assert shell.json("keys", "change", made["id"], "--metadata", "a=b")["metadata"] == {"a": "b"}
    [_, entry, _] = shell.json("audit")["data"]
    assert (entry["action"], entry["before"]["name"], entry["after"]["name"]) == ("key.change", "k", "other")


def test_lists_are_tables_csv_and_json_of_both_sources(shell: Shell) -> None:
    for number in range(3):
        shell.json("keys", "create", "--team", "search", "--name", f"k{number}")
    rows = list(csv.DictReader(io.StringIO(shell.run("keys", "list", "--csv").stdout)))
    assert [row["name"] for row in rows] == ["search-test", "k0", "k1", "k2"]
    assert [key["name"] for key in shell.json("keys", "list")["data"]] == [row["name"] for row in rows]
    table = shell.run("keys", "list", "--source", "store").stdout.splitlines()
    assert [line.split()[1] for line in table] == ["name", "k0", "k1", "k2"]
    assert shell.run("keys", "list", "--team", "ops").stdout == "There are no such keys.\n"
    # The others were made today; those of the file are judged by the ledger, which has none.
    assert [key["name"] for key in shell.json("keys", "list", "--unused", "30d")["data"]] == ["search-test"]


def test_limits_of_stored_keys_are_shown_with_the_others(shell: Shell) -> None:
    key_id = shell.json("keys", "create", "--team", "search", "--name", "k", "--limit", "requests=5/day")["id"]
    [limit] = shell.json("limits", "--team", "search")["data"]
    assert (limit["name"], limit["subject"], limit["left"]) == ("requests-per-day", key_id, 5)


def test_hashes_move_to_another_store_and_twice_does_no_harm(shell: Shell, server: RedisServer, tmp_path: Path) -> None:
    ids = [shell.json("keys", "create", "--team", "search", "--name", f"k{number}")["id"] for number in range(3)]
    file = tmp_path / "keys.json"
    file.write_text(shell.run("keys", "export").stdout)
    with contextlib.closing(server.client()) as client:
        client.flushall()
    assert shell.json("keys", "import", str(file)) == {"imported": ids, "skipped": []}
    again = shell.run("keys", "import", "-", given=file.read_text())
    assert again.stdout == "Imported 0 keys; 3 existed already.\n"
    assert [key["id"] for key in shell.json("keys", "list", "--source", "store")["data"]] == ids


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (("create",), 2, "--team"),
        (("create", "--team", "search"), 2, "--name"),
        (("create", "--team", "serch", "--name", "k"), 2, "did you mean search?"),
        (("create", "--team", "search", "--name", "a b"), 2, "name"),
        (("create", "--team", "search", "--name", "k", "--limit", "requests"), 2, "METER=AMOUNT/WINDOW"),
        (("create", "--team", "search", "--name", "k", "--limit", "requests=5"), 2, "per"),
        (("create", "--team", "search", "--name", "k", "--limit", "apples=5/day"), 2, "apples"),
        (("create", "--team", "search", "--name", "k", "--limit", "usd=5/day"), 2, "without a price"),
        (("create", "--team", "search", "--name", "k", *["--limit", "requests=5/day"] * 2), 2, "same name"),
        (("create", "--team", "search", "--name", "k", "--expires", "soon"), 2, "expires_at"),
        (("create", "--team", "search", "--name", "k", "--expires", "2020-01-01"), 2, "later than now"),
        (("create", "--team", "search", "--name", "k", "--network", "10.0.0.1/8"), 2, "a network such as"),
        (("create", "--team", "search", "--name", "k", "--models", "none/*"), 2, "matches no model"),
        (("create", "--team", "search", "--name", "k", "--metadata", "owner"), 2, "NAME=TEXT"),
        (("create", "--team", "search", "--name", "k", "--metadata", "a=1", "--metadata", "a=2"), 2, "twice"),
        (("create", "--team", "search", "--name", "k", "--csv"), 2, "--csv"),
        (("list", "--csv", "--json"), 2, "cannot be combined"),
        (("list", "--status", "gone"), 2, "gone"),
        (("list", "--unused", "soon"), 2, "30d"),
        (("show",), 2, "ID"),
        (("show", "search-test"), 2, "12 hexadecimal digits"),
        (("show", "000000000000"), 1, "no key with the id"),
        (("revoke", "000000000000"), 1, "no key with the id"),
        (("disable", "000000000000", "111111111111"), 2, "unexpected extra argument"),
        (("change",), 2, "ID"),
        (("change", "000000000000"), 2, "Nothing is to be changed"),
        (("change", "000000000000", "--name", "k"), 1, "no key with the id"),
        (("change", "000000000000", "--name", "a b"), 2, "name"),
        (("change", "000000000000", "--team", "search"), 2, "--team"),
        (("change", "000000000000", "--clear", "name"), 2, "name"),
        (("change", "000000000000", "--limit", "requests=5/day", "--clear", "limits"), 2, "cannot be combined"),
        (("change", "k", "--name", "k"), 2, "12 hexadecimal digits"),
        (("rotate", "000000000000", "--overlap", "long"), 2, "overlap"),
        (("rotate", "000000000000", "--expires", "long"), 2, "expires_at"),
        (("import", "none.json"), 2, "does not exist"),
        (("import", __file__), 2, "cannot be read as JSON"),
        (("burn",), 2, "No such command"),
    ],
)
def test_wrong_missing_and_contradictory_arguments_are_refused_in_words(
    shell: Shell, words: tuple[str, ...], status: int, says: str
) -> None:
    result = shell.run("keys", *words)
    assert (result.exit_code, says in result.stderr) == (status, True), result.stderr
    assert "Traceback" not in result.output
    assert shell.json("audit")["data"] == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--last", "0"), "--last"),
        (("--last", "10001"), "--last"),
        (("--last", "many"), "--last"),
        (("--csv", "--json"), "cannot be combined"),
        (("--team", "search"), "--team"),
        (("keys",), "unexpected extra argument"),
    ],
)
def test_the_audit_refuses_what_it_does_not_know(shell: Shell, words: tuple[str, ...], says: str) -> None:
    result = shell.run("audit", *words)
    assert (result.exit_code, says in result.stderr) == (2, True), result.stderr


def test_a_key_of_the_file_is_not_changed_by_a_command(shell: Shell) -> None:
    [key] = shell.json("keys", "list")["data"]
    result = shell.run("keys", "revoke", key["id"])
    assert (result.exit_code, "in the configuration" in result.stderr) == (2, True)


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_gateway_does_not_start_with_a_key_that_is_in_both_places(
    shell: Shell, server: RedisServer, workers: str
) -> None:
    made = shell.json("keys", "create", "--team", "search", "--name", "k")
    both = {"keys": [key_settings(), key_settings("twice", made["key"])]}
    shell.file.write_text(json.dumps(configuration(NOWHERE, store={"url": server.url}, team=both)))
    command = [sys.executable, "-m", "gateway", "serve", "-c", str(shell.file), "--workers", workers]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, "Traceback" in ended.stderr) == (2, False), ended
    assert f"teams.search: the key twice has the id {made['id']} of the stored key k" in ended.stderr


def test_a_store_that_does_not_answer_is_named(shell: Shell, tmp_path: Path) -> None:
    shell.file.write_text(json.dumps(configuration(NOWHERE, store={"url": "redis://127.0.0.1:1"})))
    result = shell.run("keys", "list")
    assert (result.exit_code, "store.url" in result.stderr) == (1, True), result.stderr


def test_without_a_shared_store_a_token_is_needed(shell: Shell) -> None:
    shell.file.write_text(json.dumps(configuration(NOWHERE)))
    result = shell.run("keys", "list")
    assert (result.exit_code, "admin.token" in result.stderr) == (1, True)


def test_the_shell_completes_commands_and_options(shell: Shell) -> None:
    def completed(*words: str) -> set[str]:
        environment = {"_GATEWAY_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(("gateway", *words))}
        result = CliRunner().invoke(main, [], prog_name="gateway", env=environment | {"COMP_CWORD": str(len(words))})
        return {line.partition(",")[2] for line in result.stdout.splitlines()}

    assert "keys" in completed("ke")
    assert {"create", "revoke"} <= completed("keys", "")
    assert "--network" in completed("keys", "create", "--n")
    assert completed("keys", "list", "--status", "re") == {"revoked"}
