from __future__ import annotations

from gateway.core.snapshot import Timeouts
from gateway.upstream.patience import Patience

TIMEOUTS = Timeouts(connect=1, first_byte=20, idle=5, total=100)


def test_a_request_that_is_not_taken_has_the_idle_time() -> None:
    patience = Patience(TIMEOUTS, began=1000)
    assert patience.deadline == 1005
    patience.sending(1003)
    assert patience.deadline == 1008
    assert patience.complaint(1008) == ("send_timeout", "took no byte of the request for 5 s")


def test_the_first_byte_has_its_time_from_the_end_of_the_request() -> None:
    patience = Patience(TIMEOUTS, began=1000)
    patience.awaiting(1010)
    assert patience.deadline == 1030
    assert patience.complaint(1030) == ("first_byte_timeout", "sent no byte of an answer for 20 s")


def test_each_piece_begins_the_idle_time_anew() -> None:
    patience = Patience(TIMEOUTS, began=1000)
    patience.flowing(1001)
    assert patience.deadline == 1006
    patience.since = 1004
    assert patience.deadline == 1009
    assert patience.complaint(1009) == ("idle_timeout", "sent nothing more for 5 s")


def test_the_total_time_binds_whatever_else_happens() -> None:
    patience = Patience(TIMEOUTS, began=1000)
    patience.flowing(1099)
    assert patience.deadline == 1100
    assert patience.complaint(1100) == ("total_timeout", "did not end its answer within 100 s in all")


def test_while_the_reader_rests_only_the_total_time_runs() -> None:
    patience = Patience(TIMEOUTS, began=1000)
    patience.flowing(1001)
    patience.resting()
    assert patience.deadline == 1100
    patience.flowing(1050)
    assert patience.deadline == 1055
