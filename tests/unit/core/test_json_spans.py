from __future__ import annotations

import json
import sys
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import BodyUnreadable, FieldInvalid
from gateway.core.json_spans import MOST, REMEMBERED_CHARACTERS, JsonSpans, NamesRead, read_json_spans

spaces = st.text(alphabet=" \t\r\n", max_size=3)
names = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=8)
leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | names
values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3))


@st.composite
def objects(draw: st.DrawFn) -> tuple[bytes, dict[str, str], list[str]]:
    """A JSON object as text, its members as texts, and the text in pieces: name and value at each third place."""
    told = draw(st.dictionaries(names, values, max_size=5))
    pieces, texts = ["{" + draw(spaces)], {}
    for place, (name, value) in enumerate(told.items()):
        texts[name] = json.dumps(value, ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 1])))
        comma = "," + draw(spaces) if place else ""
        key = json.dumps(name, ensure_ascii=draw(st.booleans()))
        pieces += [f"{comma}{key}{draw(spaces)}:{draw(spaces)}", texts[name], draw(spaces)]
    text = draw(spaces) + "".join(pieces) + "}" + draw(spaces)
    return text.encode(), texts, pieces


def refusal(body: bytes) -> str:
    with pytest.raises(BodyUnreadable) as refused:
        read_json_spans(body)
    return refused.value.message


@given(objects())
def test_each_value_is_found_where_it_stands(made: tuple[bytes, dict[str, str], list[str]]) -> None:
    body, texts, _ = made
    members = read_json_spans(body)
    assert {name: members.value(name) for name in texts} == {name: text.encode() for name, text in texts.items()}
    assert list(members.spans) == list(texts)


@given(objects(), st.data())
def test_a_change_leaves_every_other_byte_as_it_was(
    made: tuple[bytes, dict[str, str], list[str]], data: st.DataObject
) -> None:
    body, texts, _ = made
    chosen = data.draw(st.sets(st.sampled_from(sorted(texts)))) if texts else set()
    added = {"gw_added": b"[1]"} if data.draw(st.booleans()) and "gw_added" not in texts else {}
    changes = dict.fromkeys(chosen, b'{"new":true}') | added
    members = read_json_spans(body)
    changed = members.changed(changes)
    expected = json.loads(body) | {name: json.loads(text) for name, text in changes.items()}
    assert json.loads(changed) == expected
    assert _untouched(read_json_spans(changed), changes) == _untouched(members, changes)
    assert members.changed({}) == body


def _untouched(members: JsonSpans, changes: dict[str, bytes]) -> bytes:
    """The body without the values that change and without what was added at its end."""
    body = members.body
    if "gw_added" in members.spans:
        before = body[: members.spans["gw_added"][0] - len('"gw_added":')]
        body = before.removesuffix(b",") + body[members.spans["gw_added"][1] :]
    for name in reversed(members.spans):
        if name in changes and name != "gw_added":
            begin, end = members.spans[name]
            body = body[:begin] + body[end:]
    return body


def test_a_member_is_added_to_an_empty_object() -> None:
    assert read_json_spans(b"{}").changed({"a": b"1"}) == b'{"a":1}'
    assert read_json_spans(b" { \n} ").changed({"a": b"1", "b": b"2"}) == b' { \n"a":1,"b":2} '


def test_a_brace_in_the_last_string_is_not_the_end() -> None:
    assert read_json_spans(b'{"a":"}"}').changed({"b": b"2"}) == b'{"a":"}","b":2}'


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":1,"a":1}',
        b'{"a":1,"a":2}',
        b'{"a":12,"a":1}',
        b'{"a":1,"b":2,"a":1}',
        b'{"a":1,"b":{"a":1},"a":1}',
        b'{"model":"x","\\u006dodel":"y"}',
        b'{"mod\\u0065l":"x","model":"x"}',
        b'{"":1,"":1}',
        '{"é":1,"\\u00e9":2}'.encode(),
        b'{"/":1,"\\/":1}',
        b'{"a":[1,2],"b":"a","a":[1,2]}',
    ],
)
def test_a_name_that_comes_twice_is_refused_however_it_is_written(body: bytes) -> None:
    assert "twice" in refusal(body)


def test_a_body_made_to_mislead_the_walk_is_refused() -> None:
    # Taking the last value's length at the first one's place lands where a member of the last one begins.
    skipped = b'1,"b":22,"a":'
    name = b"n" * (len(skipped) - len(b',"":2}'))
    body = b'{"a":' + skipped + b'{"q":1,"' + name + b'":2}}'
    assert json.loads(body)["a"]["q"] == 1
    assert "twice" in refusal(body)


def test_a_name_within_a_value_is_another_name() -> None:
    body = b'{"a":{"a":1,"b":"\\"a\\":1"},"b":["a"]}'
    assert list(read_json_spans(body).spans) == ["a", "b"]


def test_an_escaped_name_is_the_name_that_it_means() -> None:
    members = read_json_spans(b'{"mod\\u0065l":"x"}')
    assert members.value("model") == b'"x"'
    assert members.changed({"model": b'"y"'}) == b'{"mod\\u0065l":"y"}'


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"}",
        b'{"a"}',
        b'{"a":}',
        b'{"a":1',
        b'{"a":1,}',
        b"{,}",
        b"{'a':1}",
        b'{"a":01}',
        b'{"a":+1}',
        b'{"a":.5}',
        b'{"a":1.}',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":-Infinity}',
        b'{"a":tru}',
        b'{"a":"\x01"}',
        b'{"a":"\n"}',
        b'{"a":"\\x"}',
        b'{"a":1}{"b":2}',
        b'{"a":1}x',
        b'{"a":1}\x00',
        b'\xef\xbb\xbf{"a":1}',
        '{"a":1}'.encode("utf-16"),
        '{"a":1}'.encode("utf-32"),
        b'{"a":/* no */1}',
    ],
)
def test_what_is_not_json_is_refused(body: bytes) -> None:
    assert refusal(body).startswith("The body is not valid")


@pytest.mark.parametrize("body", [b"[]", b"null", b"1", b'"text"', b"[{}]", b"true"])
def test_what_is_not_an_object_is_refused(body: bytes) -> None:
    assert refusal(body) == "The body must be a JSON object."


@pytest.mark.parametrize(
    ("text", "at"),
    [(b"\xff", 6), (b"\xc0\xaf", 6), (b"\xed\xa0\x80", 6), (b"ok \xe2\x82", 9), (b"\xf5\x80\x80\x80", 6)],
)
def test_wrong_utf_8_is_refused_with_its_place(text: bytes, at: int) -> None:
    assert f"not valid UTF-8 at byte {at}." in refusal(b'{"a":"' + text + b'"}')


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
@pytest.mark.parametrize("depth", [2_000, 200_000])
def test_deep_nesting_is_refused_and_harms_nobody(opening: bytes, depth: int) -> None:
    # How many levels Python takes differs by its version, but none is ever too much for it.
    message = refusal(b'{"x":' + opening * depth)
    assert "nested too deeply to be read. Send it with fewer levels." in message or (
        sys.version_info >= (3, 12) and "truncated" in message
    )


def test_numbers_of_any_size_pass_as_they_are() -> None:
    huge = b"9" * 400
    members = read_json_spans(b'{"seed":' + huge + b',"x":1e999,"y":-1E-999}')
    assert (members.value("seed"), members.value("x"), members.value("y")) == (huge, b"1e999", b"-1E-999")


def test_an_object_of_too_many_members_is_refused() -> None:
    def of(count: int) -> bytes:
        return b"{" + b",".join(b'"%d":0' % number for number in range(count)) + b"}"

    assert len(read_json_spans(of(MOST)).spans) == MOST
    assert "more than 1,000 members" in refusal(of(MOST + 1))


@pytest.mark.parametrize("name", ["k%d", "k"])
def test_a_million_members_are_refused_before_they_are_decoded(name: str) -> None:
    body = b"{" + b",".join(b'"%b":1' % (name.replace("%d", str(number))).encode() for number in range(10**6)) + b"}"
    tracemalloc.start()
    try:
        assert "more than 1,000 members" in refusal(body)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("text", ["\\ud83d", "wave \\uDE00!", "\\ud83d\\ud83d\\ude00", "\\\\\\udfff"])
def test_half_a_surrogate_pair_is_read_as_a_replacement_and_passed_on(text: str) -> None:
    body = f'{{"model":"m","prompt":"{text}","n":1}}'.encode()
    members = read_json_spans(body)
    assert (members.body, members.value("prompt"), members.value("n")) == (body, f'"{text}"'.encode(), b"1")
    assert json.loads(members.readable).keys() == {"model", "prompt", "n"}
    json.loads(members.readable)["prompt"].encode()


@pytest.mark.parametrize("text", ["\\ud83d\\ude00", "\\\\ud83d", "\\ufffd"])
def test_whole_pairs_and_what_only_looks_like_half_of_one_stay(text: str) -> None:
    body = f'{{"a":"{text}"}}'.encode()
    assert read_json_spans(body).readable is body


def test_halves_of_surrogate_pairs_are_refused_in_names_and_in_great_numbers() -> None:
    assert "surrogate" in refusal(b'{"mode\\ud800l":1}')
    assert "surrogate" in refusal(b'{"a":"' + b"\\ud800" * (MOST + 1) + b'"}')


@pytest.mark.parametrize("name", ["MODEL", "Model", "\u017ftream", "toKen", "to\u212aen", "l\u0131mit", "lIMIT"])
def test_a_name_that_differs_from_one_that_is_read_by_case_alone_is_refused(name: str) -> None:
    with pytest.raises(FieldInvalid, match="can be taken for"):
        NamesRead(["model", "stream", "token", "limit"]).refuse_lookalikes(["other", name])


def test_names_that_nobody_could_mistake_pass() -> None:
    NamesRead(["model", "n"]).refuse_lookalikes(["model", "models", "Modell", "größe", "", "Größe", "N1"])


@given(st.binary(max_size=40) | st.text(alphabet='{}[]:,"\\ \n01eE.-truefalsn\ud7ff', max_size=40).map(str.encode))
def test_no_bytes_raise_anything_else(body: bytes) -> None:
    try:
        members = read_json_spans(body)
    except BodyUnreadable:
        return
    assert json.loads(body).keys() == members.spans.keys()


@given(objects(), st.data())
def test_a_member_said_again_anywhere_is_refused(
    made: tuple[bytes, dict[str, str], list[str]], data: st.DataObject
) -> None:
    _, texts, pieces = made
    if not texts:
        return
    name = data.draw(st.sampled_from(sorted(texts)))
    value = data.draw(st.sampled_from([texts[name], "1", '"x"', "{}"]))
    places = list(range(1, len(pieces), 3))
    again = f"{json.dumps(name)}:{value}"
    at = data.draw(st.sampled_from([*places, len(pieces)]))
    body = "".join([*pieces[:at], f",{again}" if at > 1 else f"{again},", *pieces[at:]]) + "}"
    json.loads(body)
    assert "twice" in refusal(body.encode())


def test_half_a_character_is_passed_on_as_it_came() -> None:
    body = rb'{"a":"wave \ud83d","b":"\ud83d\ude00 \\ud83d","c":1}'
    members = read_json_spans(body)
    assert members.changed({"c": b"2"}) == body.replace(b":1}", b":2}")


@pytest.mark.parametrize(
    ("body", "changes", "changed"),
    [
        (b'{"a": {"b" : 1, "c":2}}', {("a", "b"): b"9"}, b'{"a": {"b" : 9, "c":2}}'),
        (b'{"a": {}}', {("a", "b"): b"9"}, b'{"a": {"b":9}}'),
        (b'{"a": null, "c":1}', {("a", "b"): b"9"}, b'{"a": {"b":9}, "c":1}'),
        (b"{}", {("a", "b", "c"): b"9"}, b'{"a":{"b":{"c":9}}}'),
        (b'{"a":{"b":1}}', {("a", "b"): b"8", ("c",): b"9"}, b'{"a":{"b":8},"c":9}'),
        (b'{"r":[ {"m" :"x"}, {"n":1} ]}', {("r", "*", "m"): b'"y"'}, b'{"r":[{"m" :"y"},{"n":1}]}'),
    ],
)
def test_members_at_paths_are_changed(body: bytes, changes: dict[tuple[str, ...], bytes], changed: bytes) -> None:
    assert read_json_spans(body).changed_at(changes) == changed


@pytest.mark.parametrize(
    ("body", "path", "value"),
    [
        (b'{"a":{"b": 1 }}', ("a", "b"), b"1"),
        (b'{"a":null}', ("a", "b"), None),
        (b"{}", ("a", "b"), None),
        (b'{"a":1}', ("a",), b"1"),
    ],
)
def test_a_member_at_a_path_is_found(body: bytes, path: tuple[str, ...], value: bytes | None) -> None:
    members = read_json_spans(body)
    assert members.value_at(path) == value
    assert members.has_at(path) is (value is not None)


def test_of_an_array_any_element_counts() -> None:
    members = read_json_spans(b'{"r":[{"n":1},{"m":2}],"s":5}')
    assert members.has_at(("r", "*", "m"))
    assert not members.has_at(("r", "*", "x"))
    for body in (b'{"r":[1]}', b'{"r":{}}', b'{"r":5}'):
        with pytest.raises(BodyUnreadable):
            read_json_spans(body).has_at(("r", "*", "m"))


def test_a_name_in_another_case_is_refused_where_the_read_one_has_capitals() -> None:
    read = NamesRead(["maxTokens", "max_tokens"])
    read.refuse_lookalikes(["maxTokens", "max_tokens", "other"])
    for name in ("maxtokens", "MaxTokens", "MAXTOKENS"):
        with pytest.raises(FieldInvalid, match="'maxTokens'"):
            read.refuse_lookalikes([name])


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":1,"b":2,"a":3}',
        b'{"a":1,"a":1}',
        b'{"b": 2,"a":1,"a":3}',
        b'{"a":1 ,"a":2}',
        b'{"a":2,"\\u0061":2}',
        b'{"\xc3\xa9":1,"\xc3\xa9":1}',
    ],
)
def test_a_second_member_of_a_name_is_found_however_the_object_is_written(body: bytes) -> None:
    with pytest.raises(BodyUnreadable, match="names a member twice"):
        read_json_spans(body)


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":1,"a":2,"b":3,"c":4,"d": 5}',
        b'{"a":2,"b":3,"a":1,"c":4, "d":5}',
        b'{"b":3,"c":4,"d":5,"a":2 ,"a":1}',
    ],
)
def test_a_second_member_in_the_length_of_spaces_is_refused(body: bytes) -> None:
    assert len(body) == len(b'{"a": 1, "b": 3, "c": 4, "d": 5}')
    assert "names a member twice" in refusal(body)


@pytest.mark.parametrize(
    "body", [b'{"a": 1, "b": [2]}', b'{"a":1,"b":[2]}', b'{"a":  1,"b": [2]}', b'{ "a":1 , "b":[2]}']
)
def test_members_are_found_and_changed_however_they_are_spaced(body: bytes) -> None:
    members = read_json_spans(body)
    assert (list(members.names()), members.value("a"), members.value("b")) == (["a", "b"], b"1", b"[2]")
    assert members.value("c") is None
    assert members.changed({"b": b"3"}) == body.replace(b"[2]", b"3")
    assert members.spans["b"] == (body.index(b"[2]"), body.index(b"[2]") + 3)


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
@pytest.mark.parametrize("name", ["%b", "100%", "%%s", "é", "n" * 600])
def test_an_object_in_a_usual_way_of_writing_is_known_as_such_whatever_its_names(
    name: str, separators: tuple[str, str]
) -> None:
    object_ = {name: "a%b", "b": [1, 2]}
    body = json.dumps(object_, ensure_ascii=False, separators=separators).encode()
    members = read_json_spans(body)
    assert members.found is None, "it is not walked through before something is changed"
    assert members.value("b") == json.dumps([1, 2], separators=separators).encode()
    assert members.changed({"b": b"3"}).endswith(b"3}")


def test_a_long_object_without_spaces_is_known_by_its_length() -> None:
    body = json.dumps({"a": "x" * 20_000, "b": 1}, separators=(",", ":")).encode()
    assert read_json_spans(body).found is None
    assert "names a member twice" in refusal(body[:-1] + b',"b":1}')


def test_what_follows_from_the_names_is_shared_by_objects_that_have_them_in_one_order() -> None:
    one, other = read_json_spans(b'{"a":1,"b":2}'), read_json_spans(b'{ "a" : 3 , "b" : 4 }')
    assert one.named is not None
    assert one.named is other.named
    assert one.named.names == ("a", "b")
    assert read_json_spans(b'{"b":1,"a":2}').named is not one.named


def test_names_that_are_too_long_together_are_not_remembered() -> None:
    name = "n" * (REMEMBERED_CHARACTERS + 1)
    members = read_json_spans(b'{"%b":1}' % name.encode())
    assert members.named is not None
    assert (members.named.names, members.named.are_remembered) == ((name,), False)


def test_a_byte_order_mark_is_called_by_its_name() -> None:
    for body in (b"{}", b'{"a": "\\ud83d"}', b""):
        with pytest.raises(BodyUnreadable, match="it begins with a byte order mark"):
            read_json_spans(b"\xef\xbb\xbf" + body)


@given(
    st.dictionaries(st.text(max_size=5), st.none() | st.text(max_size=5) | st.just({"a": [1]}), min_size=1), st.data()
)
def test_an_object_without_a_member_has_the_others_as_they_were(members: dict[str, Any], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(members)))
    separators = data.draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", "\t: ")]))
    body = json.dumps(members, separators=separators, ensure_ascii=data.draw(st.booleans())).encode()
    left = read_json_spans(body).without(name)
    assert list(json.loads(left).items()) == [each for each in members.items() if each[0] != name]
