from __future__ import annotations

from gateway.cli.output import figure, table


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
