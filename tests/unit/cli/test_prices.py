from __future__ import annotations

import csv
import io
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from gateway.__main__ import main

CONFIG: dict[str, Any] = {
    "upstreams": {"mistral": {"preset": "mistral"}, "own": {"preset": "vllm"}},
    "models": {
        "large": {"routes": [{"upstream": "mistral", "model": "mistral-large-latest"}]},
        "local": {"routes": [{"upstream": "own"}]},
    },
}
WITHOUT_THE_EXTRA = "import sys; sys.modules['genai_prices'] = None; from gateway.__main__ import main; main()"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "gateway.yaml"
    file.write_text(yaml.safe_dump(CONFIG))
    return file


def run(config: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["prices", *arguments, "-c", str(config)])


def test_every_model_is_listed_and_what_is_unknown_says_why(config: Path) -> None:
    result = run(config)
    assert result.exit_code == 0
    assert "mistral mistral-large" in result.stdout
    assert "not configured" in result.stdout
    assert "unknown: no provider of the catalogue has the upstream's preset or base URL" in result.stdout


def test_what_update_writes_can_be_pasted_and_leaves_no_difference(config: Path, tmp_path: Path) -> None:
    assert run(config, "diff").exit_code == 1
    written = tmp_path / "prices.yaml"
    assert run(config, "update", str(written)).stdout == ""
    models = yaml.safe_load(written.read_text())["models"]
    assert list(models) == ["large"]
    pasted = {**CONFIG, "models": {**CONFIG["models"], "large": {**CONFIG["models"]["large"], **models["large"]}}}
    config.write_text(yaml.safe_dump(pasted))
    result = run(config, "diff")
    assert (result.exit_code, result.stdout) == (0, "No price differs by more than 1 %.\n")
    assert run(config, "update").stdout == written.read_text()


def test_programs_get_json_and_spreadsheets_csv(config: Path) -> None:
    result = run(config, "diff", "--json")
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert told["catalogue"].startswith("genai-prices ")
    assert told["rows"][0] | {"catalogue": 0} == {
        "model": "large",
        "upstream": "mistral",
        "route_model": "mistral-large-latest",
        "entry": "mistral mistral-large",
        "field": "input",
        "status": "not configured",
        "configured": None,
        "catalogue": 0,
        "difference_percent": None,
        "written": False,
        "reason": "",
    }
    rows = list(csv.DictReader(io.StringIO(run(config, "--csv").stdout)))
    assert {row["status"] for row in rows} == {"not configured", "unknown"}


def test_a_file_that_somebody_wrote_by_hand_is_not_replaced(config: Path) -> None:
    before = config.read_text()
    result = run(config, "update", str(config))
    assert (result.exit_code, config.read_text()) == (1, before)
    assert "is not a file of `gateway prices update`" in result.stderr


def test_a_prices_file_is_replaced(config: Path, tmp_path: Path) -> None:
    written = tmp_path / "prices.yaml"
    for _ in range(2):
        assert run(config, "update", str(written)).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("diff", "prices.yaml"), "FILE belongs to"),
        (("update", "--json"), "writes YAML"),
        (("--csv", "--json"), "cannot be combined"),
    ],
)
def test_a_question_that_means_nothing_ends_with_two(config: Path, arguments: tuple[str, ...], said: str) -> None:
    result = run(config, *arguments)
    assert result.exit_code == 2
    assert said in result.stderr


def without_the_extra(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_THE_EXTRA, *arguments], capture_output=True, text=True, check=False
    )


def test_without_the_extra_one_line_says_how_to_install_it(config: Path) -> None:
    ended = without_the_extra("prices", "-c", str(config))
    assert (ended.returncode, ended.stdout) == (1, "")
    install = f"{shlex.quote(sys.executable)} -m pip install genai-prices"
    assert ended.stderr == f"Error: The price catalogue is not installed. Run: {install}\n"


def test_without_the_extra_a_configuration_is_checked_all_the_same(config: Path) -> None:
    priced = {**CONFIG, "models": {"large": {**CONFIG["models"]["large"], "price": {"input": 999_999, "output": 1}}}}
    config.write_text(yaml.safe_dump(priced))
    ended = without_the_extra("check", "-c", str(config))
    assert ended.returncode == 0
    assert "catalogue" not in ended.stderr
