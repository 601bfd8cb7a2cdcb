from __future__ import annotations

import json
import re
import stat
from contextlib import chdir
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.cli.init import init
from gateway.settings.loading import Loaded, load
from gateway.settings.schema import json_schema

ASSIGNED = re.compile(r"^(\w+)=(.*)$", re.MULTILINE)
ALTERNATIVE = re.compile(r"^( +)# (?= *[\w-]+:(?: |$))", re.MULTILINE)


def run(folder: Path) -> Result:
    return CliRunner().invoke(init, [str(folder)])


def environment(folder: Path) -> dict[str, str]:
    return dict(ASSIGNED.findall((folder / ".env").read_text()))


def loaded(folder: Path, **more: str) -> Loaded:
    return load(str(folder / "gateway.yaml"), environment(folder) | more)


def test_what_it_writes_can_be_used_without_a_warning(tmp_path: Path) -> None:
    assert run(tmp_path / "new" / "one").exit_code == 0
    configuration = loaded(tmp_path / "new" / "one")
    assert configuration.warnings == ()
    assert configuration.settings.admin.token


def test_every_alternative_in_its_comments_can_be_used(tmp_path: Path) -> None:
    run(tmp_path)
    file = tmp_path / "gateway.yaml"
    text, alternatives = ALTERNATIVE.subn(r"\1", file.read_text().replace("  url: memory://", "  # memory"))
    assert alternatives == 7
    file.write_text(text)
    configuration = loaded(tmp_path, OPENAI_KEY="sk-1", ANTHROPIC_KEY="sk-2", REDIS_PASSWORD="p")
    assert [warning.message for warning in configuration.warnings] == ["has no route that leads to it"]
    settings = configuration.settings
    assert set(settings.upstreams) == {"main", "openai", "anthropic"}
    assert len(settings.models) == 2


def test_editors_find_the_schema_that_its_first_line_names(tmp_path: Path) -> None:
    run(tmp_path)
    first = (tmp_path / "gateway.yaml").read_text().splitlines()[0]
    assert first == "# yaml-language-server: $schema=./gateway.schema.json"
    assert json.loads((tmp_path / "gateway.schema.json").read_text()) == json_schema()


@pytest.mark.parametrize("name", ["production.yaml", "production.yml"])
def test_a_file_may_be_named(name: str, tmp_path: Path) -> None:
    result = run(tmp_path / "etc" / name)
    assert sorted(path.name for path in (tmp_path / "etc").iterdir()) == sorted([".env", "gateway.schema.json", name])
    assert f"gateway serve -c {name}\n" in result.stdout
    assert load(str(tmp_path / "etc" / name), environment(tmp_path / "etc")).warnings == ()


def test_each_time_its_credentials_are_new_and_only_the_owner_reads_them(tmp_path: Path) -> None:
    for name in ("one", "two"):
        run(tmp_path / name)
    one, two = (environment(tmp_path / name) for name in ("one", "two"))
    credentials = ("INDUCTA_API_KEY", "GATEWAY_ADMIN_TOKEN")
    assert len({each[name] for each in (one, two) for name in credentials}) == 4
    assert stat.S_IMODE((tmp_path / "one" / ".env").stat().st_mode) == 0o600


@pytest.mark.parametrize("existing", [".env", "gateway.yaml", "gateway.schema.json"])
def test_a_file_that_exists_is_kept_and_nothing_is_written(existing: str, tmp_path: Path) -> None:
    (tmp_path / existing).write_text("mine")
    result = run(tmp_path)
    assert result.exit_code == 1
    assert result.stderr == (
        f"Error: {tmp_path / existing} exists. Nothing was written. Name another folder: gateway init FOLDER\n"
    )
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


def test_a_folder_that_cannot_be_made_is_an_error_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = run(tmp_path / "file" / "folder")
    assert result.exit_code == 1
    assert result.stderr == f"Error: {tmp_path / 'file' / 'folder'} cannot be written: Not a directory.\n"


def test_the_next_steps_fit_a_terminal_and_begin_in_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "with space"
    steps = run(folder).stdout
    assert f"cd '{folder}'\nset -a; . ./.env; set +a\n" in steps
    assert [line for line in steps.splitlines() if len(line) > 80 and not line.startswith("cd ")] == []
    with chdir(folder.parent):
        here = CliRunner().invoke(init, [])
    assert (here.exit_code, "\ncd " in here.stdout) == (0, False)
