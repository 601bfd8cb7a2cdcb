"""The top-level members of a JSON object: where each is in the bytes.

Reading them refuses what is not a JSON object, duplicate names and wrong UTF-8. Changing some leaves
every other byte as it was. Grammar: RFC 8259; duplicate names are refused because two parsers may
take different ones, which would let a client be metered for one model and served another.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from gateway.core.errors import BodyUnreadable

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_OPENING = re.compile(rb"[ \t\r\n]*\{")
_NAME = re.compile(rb'[ \t\r\n]*"[^"\\]*+(?:\\.[^"\\]*+)*+"[ \t\r\n]*:[ \t\r\n]*')
_COMMA = re.compile(rb"[ \t\r\n]*,")
_CLOSING = re.compile(rb"[ \t\r\n]*\}[ \t\r\n]*\Z")
_ESCAPE = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<half>\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\.",
    re.DOTALL,
)
_REPLACEMENT = rb"\ufffd"

MOST = 1_000
"""Members of one object: far more than any API has, and few enough to be walked through at once."""


class JsonSpans(msgspec.Struct, frozen=True):
    """`spans` gives begin and end of each member's value in `body`, in order of appearance."""

    body: bytes
    spans: dict[str, tuple[int, int]]

    def value(self, name: str) -> bytes | None:
        """A member's value as JSON text, None where the object has no such member."""
        span = self.spans.get(name)
        return self.body[span[0] : span[1]] if span else None

    def written(self, text: str) -> bytes:
        """A text as it is written for a value here."""
        return msgspec.json.encode(text)

    def changed(self, changes: Mapping[str, bytes]) -> bytes:
        """The object with some members set to other JSON texts; those it lacks are put last."""
        pieces, position = [], 0
        for name, (begin, end) in self.spans.items():
            if name in changes:
                pieces += [self.body[position:begin], changes[name]]
                position = end
        added = [b'"%b":%b' % (name.encode(), text) for name, text in changes.items() if name not in self.spans]
        if added:
            last = self.body.rindex(b"}")
            pieces += [self.body[position:last], b"," if self.spans else b"", b",".join(added)]
            position = last
        return b"".join((*pieces, self.body[position:]))


def read_json_spans(body: bytes) -> JsonSpans:
    """Where the members of a JSON object are. Raises BodyUnreadable."""
    readable = body
    try:
        if not body.isascii():
            body.decode()
        try:
            raws = _OBJECT.decode(body)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:
            readable = with_whole_characters(body)
            raws = _OBJECT.decode(readable)
    except UnicodeDecodeError as error:
        raise BodyUnreadable(f"The body is not valid UTF-8 at byte {error.start}. Send JSON in UTF-8.") from None
    except RecursionError:
        raise BodyUnreadable("The body is nested too deeply to be read.") from None
    except msgspec.ValidationError:
        raise BodyUnreadable("The body must be a JSON object.") from None
    except msgspec.DecodeError as error:
        raise BodyUnreadable(f"The body is not valid JSON: {error}.") from None
    if len(raws) > MOST:
        raise BodyUnreadable(f"The body has more than {MOST:,} members. Send only those that the API knows.")
    return JsonSpans(body, _spans(readable, raws))


def with_whole_characters(body: bytes) -> bytes:
    """JSON text with U+FFFD for each escape that is half a character: a text that a program has cut in the middle of an
    emoji is JSON still (RFC 8259, section 8.2), but no parser of Unicode takes it. Nothing changes its place."""
    return _ESCAPE.sub(lambda found: _REPLACEMENT if found["half"] else found[0], body)


def _spans(body: bytes, raws: dict[str, msgspec.Raw]) -> dict[str, tuple[int, int]]:
    # The decoder keeps the last of two equal names, at the place of the first: walking the text in
    # the decoder's order stumbles over another value, or ends before the text does.
    opening = _OPENING.match(body)
    position = opening.end() if opening else 0
    spans: dict[str, tuple[int, int]] = {}
    for name, raw in raws.items():
        found = _NAME.match(body, position)
        if found is None or not body.startswith(raw, found.end()):
            raise _repeated(name)
        end = found.end() + len(memoryview(raw))
        spans[name] = (found.end(), end)
        comma = _COMMA.match(body, end)
        position = comma.end() if comma else end
    if not _CLOSING.match(body, position):
        raise _repeated(None)
    return spans


def _repeated(near: str | None) -> BodyUnreadable:
    place = f" (near {near!r})" if near is not None and len(near) <= 64 else ""
    return BodyUnreadable(f"The body names a member twice{place}. Send each member once.")
