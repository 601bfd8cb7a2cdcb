from __future__ import annotations

import pytest
from multidict import MultiDict

from gateway.core.errors import FieldInvalid
from gateway.core.parameters import number_of, refuse_unknown


@pytest.mark.parametrize(
    ("given", "param", "what"),
    [
        ({"a": "1", "zzz": "2"}, "zzz", "'zzz' is not known here; there are a, b."),
        ({"x" * 100: ""}, "x" * 64, f"'{'x' * 64}' is not known here; there are a, b."),
        (MultiDict([("a", "1"), ("b", "2"), ("a", "1")]), "a", "'a' is given 2 times; give it once."),
        (MultiDict([("a", "1"), ("a", "2"), ("c", "3")]), "c", "'c' is not known here; there are a, b."),
    ],
)
def test_what_a_page_does_not_take_is_refused(given: dict[str, str], param: str, what: str) -> None:
    with pytest.raises(FieldInvalid) as refusal:
        refuse_unknown(given, ("a", "b"))
    assert (refusal.value.param, refusal.value.message) == (param, what)


def test_a_page_without_parameters_says_so() -> None:
    refuse_unknown({}, ())
    with pytest.raises(FieldInvalid, match="there are no parameters"):
        refuse_unknown({"a": ""}, ())


@pytest.mark.parametrize("text", ["1", "50", "007"])
def test_a_number_within_its_bounds_is_read(text: str) -> None:
    assert number_of({"limit": text}, "limit", most=50, default=9) == int(text)
    assert number_of({}, "limit", most=50, default=9) == 9


@pytest.mark.parametrize("text", ["", "0", "51", "-1", "+1", "1.0", " 1", "1_0", "\u0661", "\u00b2", "9" * 10_000])
def test_what_is_no_number_within_its_bounds_is_refused(text: str) -> None:
    with pytest.raises(FieldInvalid, match="'limit' must be a number from 1 to 50") as refusal:
        number_of({"limit": text}, "limit", most=50, default=9)
    assert refusal.value.param == "limit"
