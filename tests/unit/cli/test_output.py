from __future__ import annotations

import csv
import io

import pytest

from gateway.cli.output import figure, show_csv_objects, table


def test_words_stand_to_the_left_and_figures_to_the_right() -> None:
    assert table(["team", "tokens", "resets"], [["search", 1234567, "soon"], ["b", 8, ""]]).splitlines() == [
        "team       tokens  resets",
        "search  1,234,567  soon",
        "b               8",
    ]


def test_a_figure_has_the_decimals_that_it_needs_and_no_exponent() -> None:
    assert [figure(each) for each in (0, 1200, 0.000001, 1200.5, 3.0, 100.0)] == [
        "0",
        "1,200",
        "0.000001",
        "1,200.5",
        "3",
        "100",
    ]


def test_what_a_terminal_obeys_is_spelled_out() -> None:
    assert figure("Jürgen 日本") == "Jürgen 日本"
    assert figure("\x1b[2Ja\nb\u202e") == r"\x1b[2Ja\nb\u202e"


def test_a_table_without_rows_is_its_headings() -> None:
    assert table(["a", "b"], []) == "a  b"


def test_the_longest_texts_are_shortened_where_a_terminal_is_narrow() -> None:
    request_id = "4f0c2a9e51d37b860000002a"
    rows: list[list[str | int | float]] = [[request_id, "a" * 60, 1_234_567], ["", "b", 8]]
    assert table(["id", "why", "tokens"], rows, columns=70).splitlines() == [
        f"id{' ' * 22}  why{' ' * 30}     tokens",
        f"{request_id}  {'a' * 32}…  1,234,567",
        f"{' ' * 24}  b{' ' * 32}          8",
    ]
    narrow = table(["id", "why", "tokens"], rows, columns=20).splitlines()
    assert narrow[1] == f"{request_id}  {'a' * 23}…  1,234,567"


def test_characters_that_take_two_columns_of_a_terminal_are_counted_so() -> None:
    assert table(["team", "n"], [["日本", 1], ["e\u0301", 22]]).splitlines() == [
        "team   n",
        "日本   1",
        "e\u0301     22",
    ]


@pytest.mark.parametrize("mark", ["=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20"])
def test_no_spreadsheet_computes_a_text(mark: str, capsys: pytest.CaptureFixture[str]) -> None:
    show_csv_objects(["user", "usd"], [{"user": f"{mark}HYPERLINK(1)", "usd": -0.5, "left out": ""}])
    assert list(csv.reader(io.StringIO(capsys.readouterr().out, newline=""))) == [
        ["user", "usd"],
        [f"'{mark}HYPERLINK(1)", "-0.5"],
    ]


def test_small_amounts_are_digits_in_csv(capsys: pytest.CaptureFixture[str]) -> None:
    show_csv_objects(["usd"], [{"usd": 0.000027}, {"usd": -0.000001}, {"usd": 1234.5}, {"usd": 3}])
    assert capsys.readouterr().out.split() == ["usd", "0.000027", "-0.000001", "1234.5", "3"]
