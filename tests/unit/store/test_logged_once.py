"""An error that is met again and again is logged once, and what is remembered for that has a bound."""

from __future__ import annotations

from pathlib import Path

from gateway.store.logged_once import LoggedOnce


def test_an_error_is_logged_when_it_is_met_first() -> None:
    logged: list[str] = []
    log_once = LoggedOnce(logged.append)
    for message in ("a waits", "b waits", "a waits", "a waits, for another reason"):
        log_once(message)
    assert logged == ["a waits", "b waits", "a waits, for another reason"]


def test_of_several_errors_about_one_file_the_first_is_logged() -> None:
    logged: list[str] = []
    log_once = LoggedOnce(logged.append)
    for message in ("line 1", "line 2"):
        log_once(message, Path("a.journal"))
    log_once("line 1", Path("b.journal"))
    assert logged == ["line 1", "line 1"]


def test_what_is_met_again_stays_known_and_what_is_not_is_forgotten() -> None:
    logged: list[str] = []
    log_once = LoggedOnce(logged.append, remembered=3)
    for number in range(10):
        log_once("lasting")
        log_once(f"file {number}")
    assert logged == ["lasting", *[f"file {number}" for number in range(10)]]
    log_once("file 9")
    log_once("file 0")
    assert logged[11:] == ["file 0"]
