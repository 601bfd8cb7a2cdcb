"""What a configuration would change, in words, before it is in force."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.__main__ import main
from tests.gateway_process import gateway_process
from tests.whole_gateway import KEY, configuration, key_settings

NOWHERE = "http://127.0.0.1:1/v1"
TOKEN = "operators-token-2f8c1d"
SECRET = "gw_" + "s" * 43
BEFORE = {"limits": [{"requests": 600, "per": "minute"}, {"tokens": 5_000, "per": "day"}]}
AFTER = {
    "limits": [{"tokens": 5_000, "per": "day", "name": "daily"}, {"requests": 900, "per": "minute"}],
    "keys": [key_settings(), {"name": "another", "key": SECRET}],
}


def written(folder: Path, name: str, **changes: object) -> str:
    file = folder / name
    file.write_text(json.dumps(configuration(NOWHERE, **changes)))
    return str(file)


def diff(*words: str) -> Result:
    return CliRunner().invoke(main, ["diff", *words], terminal_width=200)


def test_a_file_is_compared_with_another_in_words(tmp_path: Path) -> None:
    old, new = written(tmp_path, "old.yaml", team=BEFORE), written(tmp_path, "new.yaml", team=AFTER, workers=1)
    result = diff("-c", new, "--against", old)
    assert result.exit_code == 0, result.output
    assert set(result.stdout.splitlines()) == {
        "workers added: 1 (needs a restart)",
        "teams.search.limits.daily renamed from tokens-per-day to daily (its counter restarts)",
        "teams.search.limits.requests-per-minute.requests changed from 600 to 900",
        "teams.search.keys.another added: {name: another, key: (redacted)}",
    }
    assert SECRET not in result.output
    assert diff("-c", new, "--against", new).stdout == "Nothing differs.\n"
    report = json.loads(diff("-c", new, "--against", old, "--json").stdout)
    assert (report["valid"], report["problems"], len(report["changes"])) == (True, [], 4)


def test_what_is_wrong_with_the_file_is_said_beside_what_it_changes(tmp_path: Path) -> None:
    wrong = {"limits": [{"requests": 900, "per": "fortnight"}]}
    old, new = written(tmp_path, "old.yaml", team=BEFORE), written(tmp_path, "new.yaml", team=wrong)
    result = diff("-c", new, "--against", old)
    assert (result.exit_code, "removed" in result.stdout) == (2, True)
    assert "new.yaml:1: teams.search.limits[0].per: must be" in result.stderr


@pytest.mark.slow
async def test_a_file_is_compared_with_what_is_in_force(tmp_path: Path) -> None:
    admin = {"listen": "127.0.0.1:0", "token": TOKEN}
    config = configuration(NOWHERE, team=BEFORE, admin=admin)
    async with gateway_process(config=config, folder=tmp_path) as gateway:
        there = {"listen": f"127.0.0.1:{gateway.admin_port}", "token": TOKEN}
        result = diff("-c", written(tmp_path, "new.yaml", team=AFTER, admin=there), "--running")
    assert (result.exit_code, KEY in result.output) == (0, False), result.output
    assert "teams.search.limits.requests-per-minute.requests changed from 600 to 900" in result.stdout


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (("-c", "FILE"), 2, "--against FILE and --running"),
        (("-c", "FILE", "--running", "--against", "FILE"), 2, "--against FILE and --running"),
        (("-c", "missing.yaml", "--against", "FILE"), 2, "missing.yaml cannot be read"),
        (("-c", "FILE", "--against", "missing.yaml"), 2, "missing.yaml cannot be read"),
        (("-c", "FILE", "--against", "BYTES"), 2, "it is not UTF-8"),
        (("-c", "FILE", "--running"), 1, "The admin API is closed"),
        (("-c", "FILE", "--against", "FILE", "--csv"), 2, "--csv"),
        (("-c", "FILE", "--against", "FILE", "more"), 2, "unexpected extra argument"),
    ],
)
def test_wrong_missing_and_contradictory_arguments_are_refused_in_words(
    tmp_path: Path, words: tuple[str, ...], status: int, says: str
) -> None:
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe")
    files = {"FILE": written(tmp_path, "file.yaml"), "BYTES": str(tmp_path / "bytes.yaml")}
    result = diff(*[files.get(word, word) for word in words])
    assert (result.exit_code, says in result.stderr) == (status, True), result.stderr
    assert "Traceback" not in result.output
