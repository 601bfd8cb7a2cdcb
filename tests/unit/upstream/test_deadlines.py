from __future__ import annotations

from gateway.core.errors import RequestMalformed, UpstreamTimedOut
from gateway.core.snapshot import Timeouts
from gateway.upstream.deadlines import CLIENT_BYTES_PER_S, CLIENT_GRACE_S, Deadlines

TIMEOUTS = Timeouts(connect=1, first_byte=20, idle=5, total=100)


def failure(deadlines: Deadlines, now: float) -> tuple[str, str]:
    error = deadlines.error(now, "inducta")
    assert isinstance(error, UpstreamTimedOut)
    return error.outcome, error.message.removeprefix("Upstream 'inducta' ")


def test_a_request_that_is_not_taken_has_the_idle_time() -> None:
    deadlines = Deadlines(TIMEOUTS, began=1000)
    assert deadlines.next == 1005
    deadlines.sending(1003)
    assert deadlines.next == 1008
    assert failure(deadlines, 1008) == ("send_timeout", "read no byte of the request for 5 s.")


def test_the_first_byte_has_its_time_from_the_end_of_the_request() -> None:
    deadlines = Deadlines(TIMEOUTS, began=1000)
    deadlines.awaiting_response(1010)
    assert deadlines.next == 1030
    assert failure(deadlines, 1030) == ("first_byte_timeout", "sent no byte of an answer for 20 s.")


def test_each_piece_starts_the_idle_time_again() -> None:
    deadlines = Deadlines(TIMEOUTS, began=1000)
    deadlines.receiving(1001)
    assert deadlines.next == 1006
    deadlines.since = 1004
    assert deadlines.next == 1009
    assert failure(deadlines, 1009) == ("idle_timeout", "sent nothing more for 5 s.")


def test_the_total_time_binds_whatever_else_happens() -> None:
    deadlines = Deadlines(TIMEOUTS, began=1000)
    deadlines.receiving(1099)
    assert deadlines.next == 1100
    assert failure(deadlines, 1100) == (
        "total_timeout",
        "did not end its answer within 100 s in all.",
    )


def test_while_the_reader_has_paused_only_the_total_time_runs() -> None:
    deadlines = Deadlines(TIMEOUTS, began=1000)
    deadlines.receiving(1001)
    deadlines.paused()
    assert deadlines.next == 1100
    deadlines.receiving(1050)
    assert deadlines.next == 1055


def test_a_client_that_sends_no_more_has_the_idle_time_and_the_blame() -> None:
    deadlines = Deadlines(TIMEOUTS, began=1000)
    deadlines.waiting_for_client(1010, 0)
    assert deadlines.next == 1015
    error = deadlines.error(1015, "inducta")
    assert isinstance(error, RequestMalformed)
    assert error.message == "No more of the body arrived for 5 seconds. Send it faster."


def test_a_client_that_sends_a_little_now_and_then_has_so_long_in_all() -> None:
    deadlines = Deadlines(Timeouts(connect=1, first_byte=20, idle=60, total=900), 1000)
    for second in range(9):
        deadlines.waiting_for_client(1000 + second, second)
        assert deadlines.next > 1000 + second + 1
    deadlines.sending(1009)
    deadlines.waiting_for_client(1500, 9)
    assert 1500 < deadlines.next < 1501.1


def test_a_client_that_sends_more_than_the_least_rate_may_go_on() -> None:
    deadlines = Deadlines(Timeouts(connect=1, first_byte=20, idle=60, total=900), 1000)
    for second in range(500):
        deadlines.waiting_for_client(1000 + second, second * CLIENT_BYTES_PER_S)
        assert deadlines.next == 1000 + second + CLIENT_GRACE_S
