"""Requests as bytes, and what a gateway makes of each: the data of test_raw_requests.py.

A row says what is sent on a connection of its own, which status and error code the answer has, whether the connection
then takes another request, and what of it reached the upstream. Rows that differ in one value come from one list.
"""

from __future__ import annotations

import gzip
import json
import zlib
from typing import NamedTuple

import brotli

from tests.whole_gateway import KEY, MODEL, chat_body

ADMIN_TOKEN = "operators-token"
MAX_BODY_BYTES = 64 * 1024
"""Of the gateway that gets the rows."""


class Forwarded(NamedTuple):
    """What reached the upstream. An empty `body` is not compared."""

    path: str
    body: bytes


class RawRequest(NamedTuple):
    name: str
    sent: bytes
    status: int
    code: str = ""
    """Of the error; empty where the answer is none."""
    kept: bool = True
    """Whether the connection takes another request afterwards."""
    forwarded: Forwarded | None = None
    """None: nothing reached the upstream."""
    param: str | None = None
    """The field that the error names, where it names one."""
    admin: bool = False
    """Sent to the admin listener."""


CHAT_PATH = "/v1/chat/completions"
CHAT_BODY = json.dumps(chat_body()).encode()
PASSED = Forwarded(CHAT_PATH, CHAT_BODY)
BEARER = f"authorization: Bearer {KEY}"
JSON_TYPE = "content-type: application/json"


def request(line: str, *headers: str, body: bytes | None = None, host: str = "host: gateway") -> bytes:
    """A request with these headers; a body brings its length."""
    length = [] if body is None else [f"content-length: {len(body)}"]
    lines = [line, *([host] if host else []), *headers, *length, "", ""]
    return "\r\n".join(lines).encode("latin-1") + (body or b"")


def chat(*headers: str, body: bytes = CHAT_BODY, path: str = CHAT_PATH, version: str = "HTTP/1.1") -> bytes:
    return request(f"POST {path} {version}", BEARER, JSON_TYPE, *headers, body=body)


def bare_chat(*headers: str, after: bytes = b"", version: str = "HTTP/1.1") -> bytes:
    """A chat completion that brings no length of its own."""
    return request(f"POST {CHAT_PATH} {version}", BEARER, JSON_TYPE, *headers) + after


def get(path: str, *headers: str, method: str = "GET", version: str = "HTTP/1.1") -> bytes:
    return request(f"{method} {path} {version}", BEARER, *headers)


def admin_get(path: str, *headers: str, method: str = "GET", body: bytes | None = None) -> bytes:
    return request(f"{method} {path} HTTP/1.1", *headers, body=body)


def fields(**changes: object) -> bytes:
    return json.dumps(chat_body(**changes)).encode()


def chunked(*pieces: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + end


def malformed(name: str, sent: bytes) -> RawRequest:
    """What is not HTTP gets a 400, and the end of the connection."""
    return RawRequest(name, sent, 400, "invalid_request", kept=False)


# ---- The request line ------------------------------------------------------------------------------------------------

REQUEST_LINES = [
    malformed("a line that is no request", b"hello\r\n\r\n"),
    malformed("a method alone", b"GET\r\n\r\n"),
    RawRequest(
        "a method and a target without a version",
        b"GET /v1/models\r\n\r\n",
        505,
        "unsupported_http_version",
        kept=False,
    ),
    malformed("TLS where HTTP is spoken", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(64))),
    malformed("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    malformed("a method that nobody knows", request("BREW /v1/chat/completions HTTP/1.1", BEARER)),
    malformed("a method in lower case", request("get /v1/models HTTP/1.1", BEARER)),
    malformed("a method with a colon", request("GE:T /v1/models HTTP/1.1", BEARER)),
    malformed("a method of bytes that are no ASCII", b"G\xc3\x8bT /v1/models HTTP/1.1\r\nhost: g\r\n\r\n"),
    RawRequest("two spaces behind the method", request("GET  /v1/models HTTP/1.1", BEARER), 200),
    RawRequest("two spaces behind the target", request("GET /v1/models  HTTP/1.1", BEARER), 200),
    malformed("a tab behind the method", request("GET\t/v1/models HTTP/1.1", BEARER)),
    malformed("a space in the target", request("GET /v1/mo dels HTTP/1.1", BEARER)),
    malformed("a space in front of the method", request(" GET /v1/models HTTP/1.1", BEARER)),
    malformed("a control character in the target", request("GET /v1/mo\x01dels HTTP/1.1", BEARER)),
    malformed("a zero in the target", request("GET /v1/mo\x00dels HTTP/1.1", BEARER)),
    malformed("a carriage return in the target", request("GET /v1/mo\rdels HTTP/1.1", BEARER)),
    malformed("a target that is no path", request("GET v1/models HTTP/1.1", BEARER)),
    malformed("a target with a fragment", chat(path=CHAT_PATH + "#x")),
    malformed("a target of 100,000 bytes", get("/" + "x" * 100_000)),
    RawRequest("a target of 8,000 bytes", get("/" + "x" * 8_000), 404, "unknown_url"),
    RawRequest("an empty line in front of the request", b"\r\n" + get("/v1/models"), 200),
    RawRequest("a target in absolute form", get("http://gateway/v1/models"), 200),
    *(
        RawRequest(f"a target in absolute form of {host}", get(f"http://{host}/v1/models"), 200)
        for host in ("other.example", "[::1]", "xn--", "xn--a", "xn--" + "a" * 70, "a..b", "%00", "x:y@gateway", "-")
    ),
    *(
        malformed(f"a target in absolute form of {host!r}", get(f"http://{host}/v1/models"))
        for host in ("", "[::1", "[]", "gateway:x", "gateway:99999", "\xff", "a b")
    ),
    malformed("a scheme without an authority", get("http:/v1/models")),
    malformed("a target in authority form", get("gateway:443")),
    malformed("a target of 64 KiB", get("/v1/models?" + "x" * 65_536)),
    RawRequest("a query of anything", get("/v1/models?a=b&%zz&=&&"), 200),
    RawRequest("a query on an endpoint", chat(path=CHAT_PATH + "?api-version=1"), 200, forwarded=PASSED),
    RawRequest("the asterisk", get("*", method="OPTIONS"), 404, "unknown_url"),
]

VERSIONS = [
    malformed("HTTP/9.9", request("GET /v1/models HTTP/9.9", BEARER)),
    RawRequest("HTTP/2.0", get("/v1/models", version="HTTP/2.0"), 505, "unsupported_http_version", kept=False),
    RawRequest("HTTP/0.9", get("/v1/models", version="HTTP/0.9"), 505, "unsupported_http_version", kept=False),
    malformed("HTTP/1.2", request("GET /v1/models HTTP/1.2", BEARER)),
    malformed("HTTP/11", request("GET /v1/models HTTP/11", BEARER)),
    malformed("HTTP/1.1.1", request("GET /v1/models HTTP/1.1.1", BEARER)),
    malformed("HTTP in lower case", request("GET /v1/models http/1.1", BEARER)),
    malformed("a version without a protocol", request("GET /v1/models 1.1", BEARER)),
    malformed("another protocol", request("GET /v1/models ICE/1.0", BEARER)),
    RawRequest("HTTP/1.0", get("/v1/models", version="HTTP/1.0"), 200, kept=False),
    RawRequest("HTTP/1.0 that asks to be kept", get("/v1/models", "connection: keep-alive", version="HTTP/1.0"), 200),
    RawRequest("a chat of HTTP/1.0", chat(version="HTTP/1.0"), 200, kept=False, forwarded=PASSED),
    RawRequest("a request that asks to close", chat("connection: close"), 200, kept=False, forwarded=PASSED),
    RawRequest(
        "a request that asks to close in capitals", chat("Connection: CLOSE"), 200, kept=False, forwarded=PASSED
    ),
    RawRequest("a request that asks to be kept", chat("connection: keep-alive"), 200, forwarded=PASSED),
]

# ---- Methods and paths -----------------------------------------------------------------------------------------------


def _refused_method(method: str, path: str, allow_code: str = "method_not_allowed", status: int = 405) -> RawRequest:
    return RawRequest(f"{method} {path}", get(path, method=method), status, allow_code)


METHODS = [
    *(_refused_method(method, CHAT_PATH) for method in ("GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")),
    *(_refused_method(method, "/v1/models") for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS")),
    *(_refused_method(method, f"/v1/models/{MODEL}") for method in ("POST", "DELETE")),
    *(_refused_method(method, "/v1/limits") for method in ("POST", "DELETE")),
    *(_refused_method(method, "/healthz") for method in ("POST", "PUT", "DELETE")),
    *(_refused_method("POST", path) for path in ("/", "/models", "/openai/v1/models")),
    *(_refused_method("GET", path) for path in ("/v1/completions", "/v1/embeddings", "/v1/messages", "/v1/responses")),
    *(_refused_method("GET", path) for path in ("/v1/moderations", "/v1/rerank", "/v1/images/generations")),
    *(_refused_method("GET", path) for path in ("/v1/images/edits", "/v1/audio/speech", "/v1/audio/transcriptions")),
    *(_refused_method("GET", path) for path in ("/chat/completions", "/openai/chat/completions")),
    _refused_method("GET", f"/openai/deployments/{MODEL}/chat/completions"),
    *(RawRequest(f"HEAD {path}", get(path, method="HEAD"), 200) for path in ("/v1/models", "/v1/limits", "/")),
    *(RawRequest(f"HEAD {path}", get(path, method="HEAD"), 200) for path in ("/healthz", f"/v1/models/{MODEL}")),
    *(
        RawRequest(f"GET {path}", get(path), 200)
        for path in ("/v1/models", "/models", "/openai/v1/models", "/v1/limits")
    ),
    *(RawRequest(f"GET {path}", get(path), 200) for path in ("/", "/healthz", f"/v1/models/{MODEL}")),
    RawRequest(
        "CONNECT to a host", request("CONNECT example.com:443 HTTP/1.1", BEARER), 404, "unknown_url", kept=False
    ),
]

PATHS = [
    *(
        RawRequest(f"nothing is at {path}", chat(path=path), 404, "unknown_url")
        for path in (
            *("/v1", "/v1/", "/v1/chat/completions/", "/v1//chat/completions", "//v1/chat/completions"),
            *("/v1/./chat/completions", "/v1/../v1/chat/completions", "/v2/chat/completions", "/V1/chat/completions"),
            *("/v1/Chat/Completions", "/v1/chat%2Fcompletions", "/%2576%2531/chat", "/v1/chat/completions;x"),
            *("/v1/chat/completions%00", "/v1/chat/completions%20", "/v1/chat/completion", "/v1/chat", "/metrics"),
            *("/admin/v1/teams", "/readyz", "/.env", "/v1/files", "/v1/v1/messages", "/v1/threads", "/favicon.ico"),
            *("/openai/deployments//chat/completions", "/openai/deployments/x/nothing", "/\\v1\\chat\\completions"),
        )
    ),
    *(
        RawRequest(f"an endpoint is at {path}", chat(path=path), 200, forwarded=PASSED)
        for path in (
            *("/chat/completions", "/openai/v1/chat/completions", "/openai/chat/completions"),
            *(f"/openai/deployments/{MODEL}/chat/completions", f"/deployments/{MODEL}/chat/completions"),
            *(f"/openai/deployments/{MODEL.replace('/', '%2F')}/chat/completions?api-version=2024-10-21",),
        )
    ),
    RawRequest(
        "a deployment that does not exist", chat(path="/openai/deployments/x/chat/completions"), 404, "model_not_found"
    ),
    *(
        RawRequest(f"no model is at {path}", get(path), 404, "model_not_found")
        for path in (
            *("/v1/models/absent", "/v1/models/%00", "/v1/models/%ff", "/v1/models/../..", "/v1/models/a%0d%0ab"),
            *(
                f"/v1/models/{MODEL.upper()}",
                f"/v1/models/{MODEL}%20",
                f"/v1/models/{MODEL}/",
                "/v1/models/" + "x" * 5_000,
            ),
        )
    ),
    RawRequest("a model behind percent signs", get("/v1/models/openai%2Fgpt-oss-120b"), 200),
    RawRequest("no name of a model", get("/v1/models/"), 404, "unknown_url"),
    malformed("a target of bytes that are no ASCII", get("/v1/mod\xe9les")),
    RawRequest(
        "a WebSocket",
        get("/v1/responses", "connection: upgrade", "upgrade: websocket"),
        426,
        "upgrade_required",
        kept=False,
    ),
    RawRequest("an upgrade to HTTP/2", get("/v1/models", "connection: upgrade, http2-settings", "upgrade: h2c"), 200),
    RawRequest(
        "a chat that would rather have HTTP/2",
        chat("connection: upgrade, http2-settings", "upgrade: h2c", "http2-settings: AAMAAABkAAQAAP__"),
        200,
        forwarded=PASSED,
    ),
    RawRequest(
        "a chat as a WebSocket",
        chat("connection: upgrade", "upgrade: websocket"),
        426,
        "upgrade_required",
        kept=False,
    ),
]

# ---- The syntax of headers -------------------------------------------------------------------------------------------

HEADERS = [
    malformed("a line without a colon", get("/v1/models", "nonsense")),
    malformed("a space in a name", get("/v1/models", "na me: x")),
    malformed("a space in front of the colon", get("/v1/models", "name : x")),
    malformed("an empty name", get("/v1/models", ": x")),
    malformed("a name in parentheses", get("/v1/models", "(name): x")),
    malformed("a name of bytes that are no ASCII", get("/v1/models", "n\xe4me: x")),
    malformed("a zero in a value", get("/v1/models", "name: a\x00b")),
    malformed("a carriage return in a value", get("/v1/models", "name: a\rb")),
    malformed("a folded line", get("/v1/models", "name: a", " b")),
    malformed("a first header that begins with a space", request("GET /v1/models HTTP/1.1", BEARER, host=" host: g")),
    malformed("a value of 100,000 bytes", get("/v1/models", "name: " + "x" * 100_000)),
    malformed("a name of 100,000 bytes", get("/v1/models", "x" * 100_000 + ": x")),
    RawRequest("a value of 16,000 bytes", get("/v1/models", "name: " + "x" * 16_000), 200),
    malformed("ten thousand headers", get("/v1/models", *(f"x-{number}: x" for number in range(10_000)))),
    RawRequest("a hundred headers", get("/v1/models", *(f"x-{number}: x" for number in range(100))), 200),
    RawRequest("a value that is empty", get("/v1/models", "name:"), 200),
    RawRequest("a value with tabs and spaces around it", get("/v1/models", "name: \t x \t"), 200),
    RawRequest("a value in UTF-8", get("/v1/models", "name: \xc3\xbc"), 200),
    RawRequest("a value in Latin 1", get("/v1/models", "name: \xfc"), 200),
    RawRequest("names in capitals", request("GET /v1/models HTTP/1.1", BEARER.upper().replace(KEY.upper(), KEY)), 200),
    RawRequest("a header that comes twice", get("/v1/models", "accept: a/b", "accept: c/d"), 200),
    malformed("two hosts", get("/v1/models", "host: other")),
    malformed("no host", request("GET /v1/models HTTP/1.1", BEARER, host="")),
    RawRequest("no host in HTTP/1.0", request("GET /v1/models HTTP/1.0", BEARER, host=""), 200, kept=False),
    RawRequest("an empty host", request("GET /v1/models HTTP/1.1", BEARER, host="host:"), 200),
    malformed("lines that end in a line feed alone", get("/v1/models").replace(b"\r\n", b"\n")),
    malformed("a line that ends in a carriage return alone", get("/v1/models").replace(b"\r\nauth", b"\rauth")),
    *(
        RawRequest(f"a request id {name}", chat(f"x-request-id: {value}"), 200, forwarded=PASSED)
        for name, value in (
            ("of 129 characters", "x" * 129),
            ("with a space", "two words"),
            ("in Latin 1", "\xfcmlaut"),
        )
    ),
    *(
        RawRequest(
            f"a body that is called {kind!r}",
            request(f"POST {CHAT_PATH} HTTP/1.1", BEARER, f"content-type: {kind}", body=CHAT_BODY),
            200,
            forwarded=PASSED,
        )
        for kind in ("", "text/plain", "application/json; charset=utf-16", "x", "application/x-www-form-urlencoded")
    ),
    malformed("two content types", chat("content-type: text/plain")),
    *(
        RawRequest(f"a {header.partition(':')[0]} that nobody needs", chat(header), 200, forwarded=PASSED)
        for header in (
            *("cookie: a=b", "range: bytes=0-1", "te: trailers", "if-none-match: *", "upgrade-insecure-requests: 1"),
            *("x-forwarded-for: 1.2.3.4", "forwarded: for=1.2.3.4", "via: 1.1 proxy", "x-http-method-override: DELETE"),
            *("accept-encoding: gzip", "accept: text/plain", "origin: https://evil.example", "trailer: x"),
            *("content-md5: x", "content-language: de", "content-location: /x", "digest: x", "expect-ct: x"),
            *("max-forwards: 0", "proxy-connection: keep-alive", "keep-alive: timeout=1", "priority: u=1"),
        )
    ),
]

# ---- Where a body ends -----------------------------------------------------------------------------------------------

_SMUGGLED = get("/v1/models")
LENGTHS = [
    *(
        malformed(f"a length of {value!r}", bare_chat(f"content-length: {value}", after=b"{}"))
        for value in (
            *(
                "-5",
                "+2",
                "2.0",
                "0x2",
                "two",
                "",
                " ",
                "2 2",
                "2,2",
                "2, 2",
                "1e1",
                "2;",
                "\xb2",
                "\xd9\xa2",
                "2\x002",
            ),
            *("9" * 30, "18446744073709551618"),
        )
    ),
    malformed("two lengths that differ", bare_chat("content-length: 2", "content-length: 3", after=b"{}x")),
    malformed("two lengths that agree", bare_chat("content-length: 2", "content-length: 2", after=b"{}")),
    malformed("a length that is folded", bare_chat("content-length: 2", " 2", after=b"{}")),
    malformed("a length behind a space in its name", bare_chat("content-length : 2", after=b"{}")),
    RawRequest(
        "a length with zeros in front",
        bare_chat(f"content-length: 000{len(CHAT_BODY)}", after=CHAT_BODY),
        200,
        forwarded=PASSED,
    ),
    RawRequest(
        "a length with spaces around it",
        bare_chat(f"content-length: \t{len(CHAT_BODY)} ", after=CHAT_BODY),
        200,
        forwarded=PASSED,
    ),
    RawRequest(
        "a length in capitals", bare_chat(f"CONTENT-LENGTH: {len(CHAT_BODY)}", after=CHAT_BODY), 200, forwarded=PASSED
    ),
    RawRequest("no length and no body", bare_chat(), 400, "invalid_json"),
    RawRequest("a length of zero", bare_chat("content-length: 0"), 400, "invalid_json"),
    RawRequest(
        "a length of 2^63", bare_chat("content-length: 9223372036854775808"), 413, "request_too_large", kept=False
    ),
    RawRequest(
        "a length over the limit", bare_chat("content-length: 1000000000"), 413, "request_too_large", kept=False
    ),
    RawRequest("a body with a request to a page", get("/v1/models", "content-length: 2") + b"{}", 200),
]

BOTH_FRAMINGS = [
    malformed(
        f"{first} in front of {second}",
        bare_chat(headers[first], headers[second], after=chunked(CHAT_BODY) + _SMUGGLED),
    )
    for headers in [{"a length": f"content-length: {len(CHAT_BODY)}", "chunks": "transfer-encoding: chunked"}]
    for first, second in [("a length", "chunks"), ("chunks", "a length")]
] + [
    malformed(
        "chunks and a length of zero",
        bare_chat("content-length: 0", "transfer-encoding: chunked", after=chunked(CHAT_BODY)),
    ),
    malformed(
        "chunks in HTTP/1.0", bare_chat("transfer-encoding: chunked", after=chunked(CHAT_BODY), version="HTTP/1.0")
    ),
]


def _coded(name: str, *headers: str, status: int = 501) -> RawRequest:
    code = "unsupported_transfer_coding" if status == 501 else "invalid_request"
    return RawRequest(name, bare_chat(*headers, after=chunked(CHAT_BODY) + _SMUGGLED), status, code, kept=False)


TRANSFER_CODINGS = [
    RawRequest("chunks", bare_chat("transfer-encoding: chunked", after=chunked(CHAT_BODY)), 200, forwarded=PASSED),
    RawRequest(
        "chunks in capitals", bare_chat("Transfer-Encoding: CHUNKED", after=chunked(CHAT_BODY)), 200, forwarded=PASSED
    ),
    _coded("gzip and chunks", "transfer-encoding: gzip, chunked"),
    _coded("identity and chunks", "transfer-encoding: identity, chunked"),
    _coded("nothing and chunks", "transfer-encoding: , chunked"),
    _coded("chunks twice on one line", "transfer-encoding: chunked, chunked", status=400),
    _coded("chunks twice on two lines", "transfer-encoding: chunked", "transfer-encoding: chunked", status=400),
    _coded("gzip on a line of its own", "transfer-encoding: gzip", "transfer-encoding: chunked", status=400),
    _coded("chunks that come first", "transfer-encoding: chunked, gzip", status=400),
    _coded("gzip alone", "transfer-encoding: gzip", status=400),
    _coded("identity alone", "transfer-encoding: identity", status=400),
    _coded("an unknown coding", "transfer-encoding: xchunked", status=400),
    _coded("chunks with a parameter", "transfer-encoding: chunked;q=1", status=400),
    _coded("chunks in quotes", 'transfer-encoding: "chunked"', status=400),
    _coded("chunks behind a vertical tab", "transfer-encoding: \x0bchunked", status=400),
    _coded("chunks in front of a line feed", "transfer-encoding: chunked\n", status=400),
    _coded("chunks that are folded", "transfer-encoding:", " chunked", status=400),
    _coded("a space in front of the colon of chunks", "transfer-encoding : chunked", status=400),
    _coded("an empty coding", "transfer-encoding:", status=400),
    _coded(
        "an underscore in place of the hyphen, and a length",
        "transfer_encoding: chunked",
        "content-length: x",
        status=400,
    ),
]


def _in_chunks(name: str, data: bytes) -> RawRequest:
    return malformed(name, bare_chat("transfer-encoding: chunked", after=data))


CHUNKS = [
    RawRequest(
        "a byte a chunk",
        bare_chat("transfer-encoding: chunked", after=chunked(*(bytes([byte]) for byte in CHAT_BODY))),
        200,
        forwarded=PASSED,
    ),
    RawRequest(
        "an extension of a chunk",
        bare_chat("transfer-encoding: chunked", after=b"%x;a=b\r\n%b\r\n0\r\n\r\n" % (len(CHAT_BODY), CHAT_BODY)),
        200,
        forwarded=PASSED,
    ),
    RawRequest(
        "a quoted extension of a chunk",
        bare_chat("transfer-encoding: chunked", after=b'%x;a="b"\r\n%b\r\n0\r\n\r\n' % (len(CHAT_BODY), CHAT_BODY)),
        200,
        forwarded=PASSED,
    ),
    RawRequest(
        "a size in capitals",
        bare_chat("transfer-encoding: chunked", after=b"%X\r\n%b\r\n0\r\n\r\n" % (len(CHAT_BODY), CHAT_BODY)),
        200,
        forwarded=PASSED,
    ),
    RawRequest(
        "a size with zeros in front",
        bare_chat("transfer-encoding: chunked", after=b"00%x\r\n%b\r\n000\r\n\r\n" % (len(CHAT_BODY), CHAT_BODY)),
        200,
        kept=False,
        forwarded=PASSED,
    ),
    RawRequest(
        "trailers",
        bare_chat("transfer-encoding: chunked", after=chunked(CHAT_BODY, end=b"0\r\nx-a: b\r\nx-c: d\r\n\r\n")),
        200,
        kept=False,
        forwarded=PASSED,
    ),
    RawRequest(
        "a trailer that is another key",
        bare_chat("transfer-encoding: chunked", after=chunked(CHAT_BODY, end=b"0\r\nauthorization: Bearer x\r\n\r\n")),
        200,
        kept=False,
        forwarded=PASSED,
    ),
    RawRequest("no chunk but the last", bare_chat("transfer-encoding: chunked", after=chunked()), 400, "invalid_json"),
    _in_chunks("a size that is no number", b"zz\r\nhello\r\n0\r\n\r\n"),
    _in_chunks("a size that is negative", b"-5\r\nhello\r\n0\r\n\r\n"),
    _in_chunks("a size with a plus", b"+5\r\nhello\r\n0\r\n\r\n"),
    _in_chunks("a size in hexadecimal notation", b"0x5\r\nhello\r\n0\r\n\r\n"),
    _in_chunks("a size with an underscore", b"1_0\r\n" + b"x" * 16 + b"\r\n0\r\n\r\n"),
    _in_chunks("a size in front of a space", b"5 \r\nhello\r\n0\r\n\r\n"),
    _in_chunks("a size behind a space", b" 5\r\nhello\r\n0\r\n\r\n"),
    _in_chunks("no size", b"\r\nhello\r\n0\r\n\r\n"),
    _in_chunks("a size of 20 digits", b"1" + b"0" * 19 + b"\r\nhello\r\n0\r\n\r\n"),
    _in_chunks("a size of 17 digits", b"f" * 17 + b"\r\nhello\r\n0\r\n\r\n"),
    _in_chunks("a chunk that is longer than its size", b"5\r\nhelloworld\r\n0\r\n\r\n"),
    _in_chunks("a chunk that is shorter than its size", b"9\r\nhello\r\n0\r\n\r\n" + b"x" * 20),
    _in_chunks("a size that ends in a line feed alone", b"5\nhello\r\n0\r\n\r\n"),
    _in_chunks("a chunk that ends in a line feed alone", b"5\r\nhello\n0\r\n\r\n"),
    _in_chunks("a size that ends in a carriage return alone", b"5\rhello\r\n0\r\n\r\n"),
    _in_chunks("an extension with a line feed", b"5;a\nb\r\nhello\r\n0\r\n\r\n"),
    _in_chunks("an extension with a zero", b"5;a\x00b\r\nhello\r\n0\r\n\r\n"),
    *(
        _in_chunks(f"a trailer {name}", b"5\r\nhello\r\n0\r\n" + line + b"\r\n\r\n")
        for name, line in (
            ("that is a length", b"content-length: 5"),
            ("that is a coding", b"transfer-encoding: chunked"),
            ("that is folded", b"x: a\r\n b"),
            ("with a space in front of the colon", b"x : a"),
            ("with a zero", b"x: a\x00"),
            ("that ends in a line feed alone", b"x: a\ny: b"),
        )
    ),
    _in_chunks("a thousand trailers", b"5\r\nhello\r\n0\r\n" + b"x: y\r\n" * 1000 + b"\r\n"),
    _in_chunks("a last size that is negative", b"5\r\nhello\r\n-0\r\n\r\n"),
    _in_chunks("an extension in bytes that are no ASCII", b"5;\xff\r\nhello\r\n0\r\n\r\n"),
    _in_chunks("an extension with a quoted line break", b'5;a="\r\n"\r\nhello\r\n0\r\n\r\n'),
    _in_chunks("a trailer without a colon", b"5\r\nhello\r\n0\r\nnonsense\r\n\r\n"),
    RawRequest(
        "more chunks than the limit",
        bare_chat("transfer-encoding: chunked", after=chunked(fields(pad="x" * MAX_BODY_BYTES))),
        413,
        "request_too_large",
    ),
]

EXPECTATIONS = [
    RawRequest(
        "a bad key that waits for leave",
        request(f"POST {CHAT_PATH} HTTP/1.1", "authorization: Bearer x", "expect: 100-continue", "content-length: 9"),
        401,
        "invalid_api_key",
        kept=False,
    ),
    RawRequest(
        "no key that waits for leave",
        request(f"POST {CHAT_PATH} HTTP/1.1", "expect: 100-continue", "content-length: 9"),
        401,
        "missing_api_key",
        kept=False,
    ),
    RawRequest(
        "a length over the limit that waits for leave",
        bare_chat("expect: 100-continue", "content-length: 1000000000"),
        413,
        "request_too_large",
        kept=False,
    ),
    RawRequest(
        "a coding that is not known and waits for leave",
        bare_chat("expect: 100-continue", "content-length: 9", "content-encoding: x"),
        415,
        "unsupported_encoding",
        kept=False,
    ),
    RawRequest("another expectation", chat("expect: the unexpected"), 200, forwarded=PASSED),
    RawRequest(
        "leave in HTTP/1.0", chat("expect: 100-continue", version="HTTP/1.0"), 200, kept=False, forwarded=PASSED
    ),
]

# ---- Credentials -----------------------------------------------------------------------------------------------------


def _with_key(name: str, *headers: str, code: str = "invalid_api_key") -> RawRequest:
    """The body has come whole, so the connection can go on."""
    sent = request(f"POST {CHAT_PATH} HTTP/1.1", JSON_TYPE, *headers, body=CHAT_BODY)
    if not code:
        return RawRequest(name, sent, 200, forwarded=PASSED)
    return RawRequest(name, sent, 401, code)


CREDENTIALS = [
    _with_key("no key", code="missing_api_key"),
    _with_key("an empty x-api-key", "x-api-key:", code="missing_api_key"),
    *(
        _with_key(f"authorization of {value[:70]!r}", f"authorization: {value}")
        for value in (
            *(
                "",
                "Bearer",
                "Bearer ",
                KEY,
                "Bearer x",
                f"Basic {KEY}",
                f"Digest {KEY}",
                f"Bearer {KEY}x",
                f"Bearer {KEY[:-1]}",
            ),
            *(
                f"Bearer {KEY.lower()}",
                f"Bearer {KEY.upper()}",
                f"Bearer {KEY} x",
                f"Bearer {KEY},{KEY}",
                f"Bearer '{KEY}'",
            ),
            *(
                f'Bearer "{KEY}"',
                f"Bearer:{KEY}",
                f"Bearer\t{KEY}",
                f"BearerX {KEY}",
                f"Token {KEY}",
                f"Bearer {KEY}\t\tx",
            ),
            *(
                "Bearer \xff\xfe",
                "Bearer " + "x" * 20_000,
                f"Bearer %67{KEY[1:]}",
                f"Bearer Bearer {KEY}",
                "Bearer null",
            ),
            *(
                "Bearer undefined",
                "Bearer ' OR 1=1 --",
                "Bearer ../../etc/passwd",
                "Bearer ${jndi:ldap://x}",
                "Bearer *",
            ),
        )
    ),
    _with_key("the scheme in lower case", f"authorization: bearer {KEY}", code=""),
    _with_key("the scheme in capitals", f"authorization: BEARER {KEY}", code=""),
    _with_key("two spaces behind the scheme", f"authorization: Bearer  {KEY}", code=""),
    _with_key("a space behind the key", f"authorization: Bearer {KEY} ", code=""),
    *(
        _with_key(f"the key in {name}", f"{name}: {KEY}", code="")
        for name in ("x-api-key", "api-key", "x-goog-api-key")
    ),
    *(_with_key(f"a bad key in {name}", f"{name}: x") for name in ("x-api-key", "api-key", "x-goog-api-key")),
    _with_key("the key in x-api-key with a scheme", f"x-api-key: Bearer {KEY}"),
    _with_key("the key twice", BEARER, f"x-api-key: {KEY}", code=""),
    _with_key("two keys that differ", BEARER, "x-api-key: x"),
    _with_key("two bearers that differ", BEARER, "authorization: Bearer x"),
    _with_key("two bearers that agree", BEARER, BEARER, code=""),
    _with_key("the key and a scheme that is not known", BEARER, "authorization: Basic eDp5"),
    _with_key("the key as a cookie", f"cookie: authorization=Bearer {KEY}", code="missing_api_key"),
    _with_key("the key for a proxy", f"proxy-authorization: Bearer {KEY}", code="missing_api_key"),
    RawRequest(
        "the key in the query",
        request(f"POST {CHAT_PATH}?api-key={KEY} HTTP/1.1", body=CHAT_BODY),
        401,
        "missing_api_key",
    ),
    RawRequest(
        "the key in the target's authority",
        request(f"GET http://x:{KEY}@gateway/v1/models HTTP/1.1"),
        401,
        "missing_api_key",
    ),
    RawRequest("a page without a key", request("GET /v1/models HTTP/1.1"), 401, "missing_api_key"),
    RawRequest(
        "a bad key and a body that is no JSON",
        request(f"POST {CHAT_PATH} HTTP/1.1", "x-api-key: x", body=b"{"),
        401,
        "invalid_api_key",
    ),
    RawRequest(
        "a bad key and a bomb",
        request(
            f"POST {CHAT_PATH} HTTP/1.1", "x-api-key: x", "content-encoding: gzip", body=gzip.compress(bytes(5_000_000))
        ),
        401,
        "invalid_api_key",
    ),
    RawRequest("health without a key", request("GET /healthz HTTP/1.1"), 200),
    RawRequest("the first page without a key", request("GET / HTTP/1.1"), 200),
    RawRequest("an unknown path without a key", request("POST /v1/nothing HTTP/1.1", body=b"{}"), 404, "unknown_url"),
]

# ---- Content codings -------------------------------------------------------------------------------------------------

_RAW_DEFLATE = zlib.compressobj(wbits=-15)
_GZIPPED = gzip.compress(CHAT_BODY, mtime=0)
_BOMB = b'{"pad":"' + b"x" * 20_000_000
CODINGS = [
    *(
        RawRequest(f"a body in {coding}", chat(f"content-encoding: {coding}", body=packed), 200, forwarded=PASSED)
        for coding, packed in (
            ("gzip", _GZIPPED),
            ("GZIP", _GZIPPED),
            ("x-gzip", _GZIPPED),
            ("deflate", zlib.compress(CHAT_BODY)),
            ("br", brotli.compress(CHAT_BODY)),
            ("identity", CHAT_BODY),
            ("", CHAT_BODY),
            ("gzip, identity", _GZIPPED),
            ("gzip, gzip", gzip.compress(_GZIPPED)),
            ("br, gzip", gzip.compress(brotli.compress(CHAT_BODY))),
            ("gzip ,\t", _GZIPPED),
        )
    ),
    RawRequest(
        "deflate without its head",
        chat("content-encoding: deflate", body=_RAW_DEFLATE.compress(CHAT_BODY) + _RAW_DEFLATE.flush()),
        200,
        forwarded=PASSED,
    ),
    RawRequest(
        "gzip of two members",
        chat("content-encoding: gzip", body=gzip.compress(CHAT_BODY[:20]) + gzip.compress(CHAT_BODY[20:])),
        200,
        forwarded=PASSED,
    ),
    *(
        RawRequest(f"a coding {coding!r}", chat(f"content-encoding: {coding}"), 415, "unsupported_encoding", kept=kept)
        for coding, kept in (
            *(
                ("compress", True),
                ("zip", True),
                ("nonsense", True),
                ("gzip;q=1", True),
                ("chunked", True),
                ("gzip gzip", True),
            ),
            *(("gzip, gzip, gzip, gzip, gzip", True), ("*", True), ("aes128gcm", True), ("dcb", True)),
        )
    ),
    *(
        RawRequest(
            f"{name} in {coding}", chat(f"content-encoding: {coding}", body=body), 400, "invalid_request", kept=False
        )
        for coding in ("gzip", "deflate", "br", "zstd")
        for name, body in (("what is not packed", b"this is not packed"), ("nothing", b""))
    ),
    RawRequest(
        "gzip that ends early", chat("content-encoding: gzip", body=_GZIPPED[:-9]), 400, "invalid_request", kept=False
    ),
    RawRequest(
        "gzip with a wrong checksum",
        chat("content-encoding: gzip", body=_GZIPPED[:-8] + bytes(8)),
        400,
        "invalid_request",
        kept=False,
    ),
    RawRequest(
        "bytes behind deflate",
        chat("content-encoding: deflate", body=zlib.compress(CHAT_BODY) + b"xxx"),
        400,
        "invalid_request",
        kept=False,
    ),
    RawRequest(
        "bytes behind br",
        chat("content-encoding: br", body=brotli.compress(CHAT_BODY) + b"xxx"),
        400,
        "invalid_request",
        kept=False,
    ),
    RawRequest("a bomb in gzip", chat("content-encoding: gzip", body=gzip.compress(_BOMB)), 413, "request_too_large"),
    RawRequest(
        "a bomb in br", chat("content-encoding: br", body=brotli.compress(_BOMB, quality=5)), 413, "request_too_large"
    ),
    RawRequest(
        "a bomb in a bomb",
        chat("content-encoding: gzip, gzip", body=gzip.compress(gzip.compress(_BOMB))),
        413,
        "request_too_large",
    ),
]

# ---- JSON ------------------------------------------------------------------------------------------------------------

_MESSAGES = '"messages":[{"role":"user","content":"Say hello."}]'


def _json(name: str, body: bytes | str, status: int = 400, code: str = "invalid_json") -> RawRequest:
    sent = body if isinstance(body, bytes) else body.encode()
    forwarded = Forwarded(CHAT_PATH, sent) if status == 200 else None
    return RawRequest(name, chat(body=sent), status, code if status != 200 else "", forwarded=forwarded)


def _with(members: str, status: int = 400, code: str = "invalid_json") -> RawRequest:
    return _json(f"JSON with {members[:40]}", f'{{"model":"{MODEL}",{_MESSAGES}{members}}}', status, code)


JSON = [
    *(
        _json(f"a body of {body[:30]!r}", body)
        for body in (
            *(
                b"",
                b" ",
                b"\x00",
                b"hello",
                b"null",
                b"true",
                b"0",
                b"[]",
                b'"text"',
                b"{",
                b"}",
                b"{}}",
                b"{} {}",
                b"[{}]",
            ),
            *(
                b"{,}",
                b"{:}",
                b'{"a"}',
                b'{"a":}',
                b'{"a" 1}',
                b"{a:1}",
                b"{'a':1}",
                b'{"a":1,}',
                b"{1:2}",
                b"\xef\xbb\xbf{}",
            ),
            *(
                b"\xff\xfe{\x00}\x00",
                b"// x\n{}",
                b"/* x */{}",
                b"#\n{}",
                b"{}\x00",
                b"{}x",
                b")]}',\n{}",
                b"model=x",
                b"<a/>",
            ),
        )
    ),
    _json("JSON in UTF-16", json.dumps(chat_body()).encode("utf-16")),
    _json("JSON in UTF-32", json.dumps(chat_body()).encode("utf-32")),
    _json("JSON that ends early", f'{{"model":"{MODEL}",{_MESSAGES}'),
    *(
        _with(members)
        for members in (
            *(
                ",",
                ',"x":NaN',
                ',"x":Infinity',
                ',"x":-Infinity',
                ',"x":0x10',
                ',"x":01',
                ',"x":+1',
                ',"x":.5',
                ',"x":1.',
            ),
            *(
                ',"x":1e',
                ',"x":1_000',
                ',"x":True',
                ',"x":None',
                ',"x":undefined',
                ",\"x\":'y'",
                ',"x":"a\nb"',
                ',"x":"\t"',
            ),
            *(
                ',"x":"\\x41"',
                ',"x":"\\u12"',
                ',"x":"\\"',
                ',"x":1,"x":2',
                f',"model":"{MODEL}"',
                f',"mod\\u0065l":"{MODEL}"',
            ),
            *(',"stream":true,"stream":false', ',"x\\ud800":1', ',"x":[1,]', ',"x":{"a":1,}', ',"x":[', ',"x":]', ",,"),
        )
    ),
    _json("a byte that is no UTF-8 in a text", f'{{"model":"{MODEL}",{_MESSAGES},"x":"'.encode() + b'\xff"}'),
    _json("a surrogate in UTF-8", f'{{"model":"{MODEL}",{_MESSAGES},"x":"'.encode() + b'\xed\xa0\x80"}'),
    _json("UTF-8 that is too long", f'{{"model":"{MODEL}",{_MESSAGES},"x":"'.encode() + b'\xc0\xaf"}'),
    *(
        _with(members, 400, "invalid_value")
        for members in (
            *(',"MODEL":"other"', ',"Model":"other"', ',"Stream":true', ',"\\u017ftream":true', ',"MAX_TOKENS":5'),
            *(',"stream_options":{"INCLUDE_USAGE":true}',),
        )
    ),
    *(
        _with(members, 200)
        for members in (
            *("", ',"x":null', ',"x":1.5e300', ',"x":-0', ',"x":1E+2', ',"x":"\\u0000"', ',"":1', ',"x":{}'),
            *(
                ',"x":"\x7f"',
                ',"x":12345678901234567890123',
                ',"x":{"x":{"x":[[[]]]}}',
                ',"\\u00fc":1',
                ',"__proto__":{}',
            ),
            *(',"seed":-5,"logit_bias":{"1":2}', ',"x":"' + "y" * 30_000 + '"'),
        )
    ),
    _json("JSON with white space everywhere", json.dumps(chat_body(), indent=4), 200),
    _json("JSON with a line feed behind it", CHAT_BODY + b"\r\n\t ", 200),
    _json("JSON of 60 levels", f'{{"model":"{MODEL}",{_MESSAGES},"x":{"[" * 60}{"]" * 60}}}', 200),
    # From Python 3.12 on, so many would be read if they were closed.
    _json("JSON of 30,000 open levels", f'{{"model":"{MODEL}",{_MESSAGES},"x":{"[" * 30_000}}}'),
    _json("JSON over the limit", fields(pad="x" * MAX_BODY_BYTES), 413, "request_too_large"),
    RawRequest("a model that does not exist", chat(body=fields(model="absent")), 404, "model_not_found", param="model"),
    RawRequest("a model in capitals", chat(body=fields(model=MODEL.upper())), 404, "model_not_found", param="model"),
    RawRequest(
        "a model with a space behind it", chat(body=fields(model=MODEL + " ")), 404, "model_not_found", param="model"
    ),
]

# ---- Fields ----------------------------------------------------------------------------------------------------------


def _field(param: str, **changes: object) -> RawRequest:
    name = f"{param} of {json.dumps(changes)[:60]}"
    return RawRequest(name, chat(body=fields(**changes)), 400, "invalid_value", param=param)


FIELDS = [
    *(_field("model", model=value) for value in (None, 7, "", [], {}, True, "x" * 257)),
    *(_field("messages", messages=value) for value in (None, [], "hello", {}, 5)),
    *(_field("messages[0]", messages=[value]) for value in ("hello", None, 5, [])),
    *(_field("messages[0].role", messages=[value]) for value in ({"content": "x"}, {"role": None}, {"role": "User"})),
    _field("messages[1].role", messages=[{"role": "user"}, {"role": "wizard"}]),
    *(_field("max_tokens", max_tokens=value) for value in (0, -1, "10", 10.5, True, 10**30, [], 2**31)),
    *(_field("max_completion_tokens", max_completion_tokens=value) for value in (0, "1", 1.5)),
    *(_field("temperature", temperature=value) for value in (2.1, -0.1, "hot", True, [])),
    *(_field("top_p", top_p=value) for value in (1.01, -1, "x")),
    *(_field("stream", stream=value) for value in ("true", 1, 0, [])),
    *(_field("stream_options", stream_options=value) for value in ("usage", [], 1)),
    _field("stream_options.include_usage", stream_options={"include_usage": "yes"}),
    *(_field("stop", stop=value) for value in (5, ["a", "b", "c", "d", "e"], {})),
    _field("stop[1]", stop=["a", 1]),
    *(_field("n", n=value) for value in (0, 129, "1", 1.5)),
    *(_field("user", user=value) for value in (5, [], "x" * 513)),
    _field("service_tier", service_tier=5),
    *(
        _json(f"fields {json.dumps(changes)[:60]}", fields(**changes), 200)
        for changes in (
            {"temperature": 0, "top_p": 0, "max_tokens": 1},
            {"temperature": 2, "top_p": 1, "max_completion_tokens": 1},
            {"stop": "a"},
            {"stop": ["a", "b", "c", "d"]},
            {"stop": None, "max_tokens": None, "temperature": None, "stream": None, "stream_options": None, "n": None},
            {"messages": [{"role": role, "content": "x"} for role in ("system", "developer", "user", "assistant")]},
            {"messages": [{"role": "tool", "content": "x", "tool_call_id": "1"}, {"role": "function", "name": "f"}]},
            {"seed": -5, "logit_bias": {"1": 2}, "metadata": {"a": "b"}, "whatever": [None, True, 1.5e300, "ü"]},
            {"user": "x" * 512},
            {"n": 1},
            {"stream": False},
        )
    ),
]

# ---- Endpoints -------------------------------------------------------------------------------------------------------


def _endpoint(path: str, body: dict[str, object], status: int = 200, code: str = "", **rest: str) -> RawRequest:
    sent = json.dumps(body).encode()
    name = f"{path} with {sent[:150].decode()}"
    forwarded = Forwarded(path, sent) if status == 200 else None
    return RawRequest(name, chat(path=path, body=sent), status, code, forwarded=forwarded, param=rest.get("param"))


def _invalid(path: str, param: str, **body: object) -> RawRequest:
    return _endpoint(path, body, 400, "invalid_value", param=param)


_USER = [{"role": "user", "content": "x"}]
ENDPOINTS = [
    _endpoint("/v1/completions", {"model": MODEL, "prompt": "x"}),
    _endpoint("/v1/embeddings", {"model": MODEL, "input": "x"}),
    _endpoint("/v1/embeddings", {"model": MODEL, "input": [1, 2]}),
    _endpoint("/v1/responses", {"model": MODEL, "input": "x"}),
    _endpoint("/v1/messages", {"model": MODEL, "messages": _USER, "max_tokens": 5}),
    _endpoint("/v1/moderations", {"model": MODEL, "input": "x"}),
    _endpoint("/v1/rerank", {"model": MODEL, "query": "x", "documents": ["y"]}),
    _endpoint("/v1/images/generations", {"model": MODEL, "prompt": "x"}),
    _endpoint("/v1/audio/speech", {"model": MODEL, "input": "x", "voice": "y"}),
    _endpoint("/v1/completions", {"model": MODEL}),
    _invalid("/v1/completions", "prompt", model=MODEL, prompt=[]),
    _invalid("/v1/completions", "max_tokens", model=MODEL, prompt="x", max_tokens=-1),
    _invalid("/v1/embeddings", "input", model=MODEL),
    _invalid("/v1/embeddings", "input", model=MODEL, input=[]),
    _invalid("/v1/embeddings", "input", model=MODEL, input=5),
    _invalid("/v1/responses", "background", model=MODEL, input="x", background=True),
    _invalid("/v1/responses", "max_output_tokens", model=MODEL, input="x", max_output_tokens=0),
    _invalid("/v1/messages", "max_tokens", model=MODEL, messages=_USER),
    _invalid("/v1/messages", "messages", model=MODEL, messages=[], max_tokens=5),
    _invalid("/v1/messages", "temperature", model=MODEL, messages=_USER, max_tokens=5, temperature=1.5),
    _invalid("/v1/moderations", "input", model=MODEL),
    _invalid("/v1/rerank", "query", model=MODEL, documents=["y"]),
    _invalid("/v1/rerank", "documents", model=MODEL, query="x"),
    _invalid("/v1/images/generations", "prompt", model=MODEL, prompt=""),
    _invalid("/v1/images/generations", "n", model=MODEL, prompt="x", n=11),
    _invalid("/v1/audio/speech", "input", model=MODEL, input=""),
    *(
        _endpoint(path, {"model": "absent", **body}, 404, "model_not_found", param="model")
        for path, body in (
            ("/v1/completions", {"prompt": "x"}),
            ("/v1/embeddings", {"input": "x"}),
            ("/v1/messages", {"messages": _USER, "max_tokens": 5}),
            ("/v1/responses", {"input": "x"}),
        )
    ),
]

# ---- Forms -----------------------------------------------------------------------------------------------------------

FORM_PATH = "/v1/audio/transcriptions"
_MODEL_PART = ('form-data; name="model"', MODEL)
_FILE_PART = ('form-data; name="file"; filename="a.wav"', "RIFF")


def _form_body(*parts: tuple[str, str], boundary: str = "b", end: str = "--b--\r\n") -> bytes:
    pieces = [f"--{boundary}\r\ncontent-disposition: {head}\r\n\r\n{content}\r\n" for head, content in parts]
    return ("".join(pieces) + end).encode()


def _form(
    name: str, body: bytes, status: int = 400, code: str = "invalid_form", kind: str = "multipart/form-data; boundary=b"
) -> RawRequest:
    sent = request(f"POST {FORM_PATH} HTTP/1.1", BEARER, f"content-type: {kind}", body=body)
    return RawRequest(name, sent, status, code, forwarded=Forwarded(FORM_PATH, b"") if status == 200 else None)


FORMS = [
    _form("a form", _form_body(_MODEL_PART, _FILE_PART), 200, ""),
    _form("a form with its file first", _form_body(_FILE_PART, _MODEL_PART), 200, ""),
    _form("a boundary in quotes", _form_body(_MODEL_PART, _FILE_PART), 200, "", 'multipart/form-data; boundary="b"'),
    _form("a form without its model", _form_body(_FILE_PART), 400, "invalid_value"),
    _form(
        "a form of an unknown model",
        _form_body(('form-data; name="model"', "absent"), _FILE_PART),
        404,
        "model_not_found",
    ),
    _form("a form with two models", _form_body(_MODEL_PART, _MODEL_PART, _FILE_PART)),
    _form("a form that does not end", _form_body(_MODEL_PART, end="")),
    _form("a form without a part", b"--b--\r\n", 400, "invalid_value"),
    _form("a form that is empty", b""),
    _form("a form of another boundary", _form_body(_MODEL_PART, boundary="c", end="--c--\r\n")),
    _form("a form without a boundary", _form_body(_MODEL_PART), kind="multipart/form-data"),
    _form("a form with an empty boundary", _form_body(_MODEL_PART), kind="multipart/form-data; boundary="),
    _form("a form with two boundaries", _form_body(_MODEL_PART), kind="multipart/form-data; boundary=b; boundary=c"),
    _form("a part without a name", _form_body(_MODEL_PART, ("form-data", "x"))),
    _form("a part with another disposition", _form_body(_MODEL_PART, ('attachment; name="file"', "x"))),
    _form("a part with another parameter", _form_body(('form-data; name="model"; x="y"', MODEL))),
    _form("a model in brackets", _form_body(_MODEL_PART, ('form-data; name="model[]"', "other"), _FILE_PART)),
    _form("a field MODEL beside model", _form_body(_MODEL_PART, ('form-data; name="MODEL"', "other"), _FILE_PART)),
    _form("a model that is a file", _form_body(('form-data; name="model"; filename="x"', MODEL))),
    _form("an n that is no number", _form_body(_MODEL_PART, ('form-data; name="n"', "x")), 400, "invalid_value"),
    _form("a form in a form", _form_body(_MODEL_PART, ('form-data; name="x"\r\ncontent-type: multipart/mixed', "x"))),
    _form("a part in base64", _form_body(('form-data; name="model"\r\ncontent-transfer-encoding: base64', MODEL))),
    _form("a part without a head", b"--b\r\n\r\nx\r\n--b--\r\n"),
    _form("a form with line feeds alone", _form_body(_MODEL_PART).replace(b"\r\n", b"\n")),
    RawRequest(
        "a form to an endpoint that takes none",
        request(
            f"POST {CHAT_PATH} HTTP/1.1",
            BEARER,
            "content-type: multipart/form-data; boundary=b",
            body=_form_body(_MODEL_PART),
        ),
        400,
        "invalid_json",
    ),
]

# ---- The admin listener ----------------------------------------------------------------------------------------------

_TOKEN = f"authorization: Bearer {ADMIN_TOKEN}"


def _admin(name: str, sent: bytes, status: int, code: str = "", *, kept: bool = True) -> RawRequest:
    return RawRequest(f"admin: {name}", sent, status, code, kept=kept, admin=True)


ADMIN = [
    *(_admin(path, admin_get(path), 200) for path in ("/metrics", "/healthz", "/readyz", "/metrics?x=y")),
    *(_admin(f"HEAD {path}", admin_get(path, method="HEAD"), 200) for path in ("/metrics", "/healthz", "/readyz")),
    *(
        _admin(f"{method} {path}", admin_get(path, method=method), 405, "method_not_allowed")
        for method in ("POST", "PUT", "DELETE", "OPTIONS")
        for path in ("/metrics", "/healthz")
    ),
    *(
        _admin(f"nothing is at {path}", admin_get(path, _TOKEN), 404, "unknown_url")
        for path in (
            *("/", "/admin", "/admin/v1", "/admin/v2/teams", "/metrics/", "//metrics", "/Metrics", "/v1/models"),
            *("/admin/v1/", "/admin/v1/nothing", "/admin/v1/teams/", "/admin/v1/teams/search", "/admin/v1//teams"),
            *("/admin/v1/keys/absent", "/admin/v1/keys/", "/admin/v1/%74eams", "/admin/v1/../v1/teams", "/.env"),
        )
    ),
    *(
        _admin(
            f"token of {header[:50]!r}",
            admin_get("/admin/v1/teams", *([header] if header else [])),
            401,
            "invalid_api_key",
        )
        for header in (
            *(
                "",
                "authorization:",
                "authorization: Bearer",
                "authorization: Bearer x",
                f"authorization: {ADMIN_TOKEN}",
            ),
            *(
                f"authorization: Basic {ADMIN_TOKEN}",
                f"authorization: Bearer {ADMIN_TOKEN}x",
                f"x-api-key: {ADMIN_TOKEN}",
            ),
            *(
                f"authorization: Bearer {ADMIN_TOKEN[:-1]}",
                "authorization: Bearer \xff",
                f"authorization: Bearer {KEY}",
            ),
            *(f"cookie: token={ADMIN_TOKEN}", f"authorization: Bearer {ADMIN_TOKEN.upper()}"),
        )
    ),
    _admin("a stranger to an unknown page", admin_get("/admin/v1/nothing"), 401, "invalid_api_key"),
    _admin("a stranger who reloads", admin_get("/admin/v1/reload", method="POST"), 401, "invalid_api_key"),
    _admin(
        "a stranger with a body",
        admin_get("/admin/v1/reload", "content-length: 50000", method="POST"),
        401,
        "invalid_api_key",
        kept=False,
    ),
    _admin(
        "a stranger with a bomb",
        admin_get("/admin/v1/reload", "content-encoding: gzip", method="POST", body=gzip.compress(bytes(9_000_000))),
        401,
        "invalid_api_key",
    ),
    *(
        _admin(path, admin_get(path, _TOKEN), 200)
        for path in ("/admin/v1/teams", "/admin/v1/keys", "/admin/v1/upstreams")
    ),
    *(
        _admin(path, admin_get(path, _TOKEN), 200)
        for path in ("/admin/v1/limits", "/admin/v1/usage", "/admin/v1/keys?team=x")
    ),
    *(
        _admin(path, admin_get(path, _TOKEN), 400, "invalid_value")
        for path in (
            *(
                "/admin/v1/usage?since=x",
                "/admin/v1/usage?by=nothing",
                "/admin/v1/usage?top=x",
                "/admin/v1/usage?sort=x",
            ),
            *("/admin/v1/usage?nothing=1", "/admin/v1/limits?nothing=1"),
        )
    ),
    _admin("GET of the reload", admin_get("/admin/v1/reload", _TOKEN), 405, "method_not_allowed"),
    _admin("a reload without a file", admin_get("/admin/v1/reload", _TOKEN, method="POST"), 400, "invalid_value"),
    *(
        _admin(f"{method} of the teams", admin_get("/admin/v1/teams", _TOKEN, method=method), 405, "method_not_allowed")
        for method in ("POST", "PUT", "DELETE", "OPTIONS")
    ),
    _admin(
        "the token in lower case of its scheme",
        admin_get("/admin/v1/teams", f"authorization: bearer {ADMIN_TOKEN}"),
        200,
    ),
    _admin("CONNECT to a host", b"CONNECT g:443 HTTP/1.1\r\nhost: g\r\n\r\n", 404, "unknown_url", kept=False),
    _admin("a WebSocket", admin_get("/metrics", "connection: upgrade", "upgrade: websocket"), 200, kept=False),
    *(
        _admin(f"a target in absolute form of {host}", admin_get(f"http://{host}/metrics"), 200)
        for host in ("other.example", "[::1]", "xn--", "xn--a", "xn--" + "a" * 70, "x:y@gateway")
    ),
    _admin("what is not HTTP", b"hello\r\n\r\n", 400, "invalid_request", kept=False),
    _admin("a header without a colon", admin_get("/metrics", "nonsense"), 400, "invalid_request", kept=False),
    _admin("HTTP/2.0", b"GET /metrics HTTP/2.0\r\nhost: g\r\n\r\n", 505, "unsupported_http_version", kept=False),
    _admin("HTTP/1.0", b"GET /metrics HTTP/1.0\r\n\r\n", 200, kept=False),
    _admin("a fragment", admin_get("/metrics#x"), 400, "invalid_request", kept=False),
    _admin(
        "a length and chunks",
        admin_get("/admin/v1/reload", _TOKEN, "transfer-encoding: chunked", "content-length: 2", method="POST")
        + b"0\r\n\r\n",
        400,
        "invalid_request",
        kept=False,
    ),
    _admin(
        "gzip and chunks",
        admin_get("/admin/v1/reload", _TOKEN, "transfer-encoding: gzip, chunked", method="POST") + b"0\r\n\r\n",
        501,
        "unsupported_transfer_coding",
        kept=False,
    ),
    _admin(
        "two lengths",
        admin_get("/admin/v1/reload", _TOKEN, "content-length: 2", "content-length: 3", method="POST") + b"xxx",
        400,
        "invalid_request",
        kept=False,
    ),
    _admin("a key of the data plane's own", admin_get("/metrics", BEARER), 200),
]

RAW_REQUESTS = [
    *(*REQUEST_LINES, *VERSIONS, *METHODS, *PATHS, *HEADERS, *LENGTHS, *BOTH_FRAMINGS, *TRANSFER_CODINGS, *CHUNKS),
    *(*EXPECTATIONS, *CREDENTIALS, *CODINGS, *JSON, *FIELDS, *ENDPOINTS, *FORMS, *ADMIN),
]
