"""The types of settings: durations, sizes, counts, money, addresses, names, dates.

Each reads the text of the file (or a plain value, for settings built in code). If it cannot, it says what is allowed
and never what it was given. It also describes itself to JSON Schema.
"""

from __future__ import annotations

import ipaddress
import re
from base64 import b64decode
from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import PlainValidator, SecretStr, WithJsonSchema

from gateway.core.address import Address
from gateway.core.endpoints import ENDPOINT_NAMES
from gateway.core.http_syntax import is_host_name, read_base_url
from gateway.core.issuers import TOKEN_ALGORITHMS
from gateway.core.proxies import read_proxy
from gateway.core.store_url import SCHEMES, read_store_url

MAX_WHOLE = 2**53
"""The largest exact amount: a double, which Redis' Lua counts in, holds no more."""

MAX_WORKERS = 512
"""The most workers: more than any machine has cores for."""

MONEY_DECIMALS = 6
"""Dollars are kept as whole micro-dollars, prices as whole pico-dollars a token."""

UNIT_PRICE_DECIMALS = 9
"""Of the price of one search or one second of audio: 0.36 USD an hour is 0.0001 USD a second."""

FACTOR_DECIMALS, FACTOR_MAX = 3, 100
"""Of what a region multiplies prices by: with the decimals of a price, amounts are whole femto-dollars."""

PRICE_MAX = 1_000_000
"""USD for a million tokens, or for one unit."""

_MODEL = r"[^\x00-\x1f\x7f-\x9f]{1,256}"
_WHOLE = r"[0-9]{1,16}(_[0-9]{1,16}){0,9}"
_STORE_SCHEMES = "^(" + "|".join(re.escape(scheme) for scheme in SCHEMES) + ")"
_AN_ENDPOINT = "gemini.*"
_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_BYTES = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}


def is_model_name(text: str) -> bool:
    return re.fullmatch(_MODEL, text) is not None


def _match(pattern: str, given: Any, allowed: str) -> re.Match[str]:
    found = re.fullmatch(pattern, given) if isinstance(given, str) else None
    if found is None:
        raise ValueError(allowed)
    return found


def _whole(digits: str, allowed: str) -> int:
    number = int(digits.replace("_", ""))
    if number > MAX_WHOLE:
        raise ValueError(allowed)
    return number


def text_of(pattern: str, allowed: str) -> tuple[PlainValidator, WithJsonSchema]:
    """Text that fits a pattern as a whole. A number or a switch is not text: only the JSON of operators can have one,
    since the file's values are all read as they are written."""

    def read(given: Any) -> str:
        if isinstance(given, int | float):
            raise ValueError(f"{allowed}; this is not text: put it in quotes")
        return _match(pattern, given, allowed)[0]

    return value_type(read, type="string", pattern=f"^({pattern})$")


def value_type(read: Callable[[Any], Any], **schema: Any) -> tuple[PlainValidator, WithJsonSchema]:
    return PlainValidator(read), WithJsonSchema(schema)


def _count(given: Any) -> int:
    allowed = f"must be a whole number from 1 to {MAX_WHOLE}; digits may be grouped with _"
    number = given if type(given) is int else _whole(_match(_WHOLE, given, allowed)[0], allowed)
    if not 1 <= number <= MAX_WHOLE:
        raise ValueError(allowed)
    return number


def read_workers(given: Any) -> int | Literal["auto"]:
    """Raises ValueError: what is allowed."""
    if given == "auto":
        return "auto"
    allowed = f"must be a number of processes from 1 to {MAX_WORKERS}, or auto"
    number = given if type(given) is int else int(_match("[0-9]{1,3}", given, allowed)[0])
    if not 1 <= number <= MAX_WORKERS:
        raise ValueError(allowed)
    return number


def _switch(given: Any) -> bool:
    if isinstance(given, bool):
        return given
    return _match("true|false", given, "must be true or false")[0] == "true"


def _duration(given: Any) -> timedelta:
    if isinstance(given, timedelta):
        return given
    allowed = "must be a duration such as 250ms, 5s, 15m, 24h or 90d, and at most 3650d"
    parts = _match(rf"({_WHOLE})(ms|s|m|h|d)", given, allowed)
    milliseconds = _whole(parts[1], allowed) * _MS[parts[3]]
    if milliseconds > 3650 * _MS["d"]:
        raise ValueError(allowed)
    return timedelta(milliseconds=milliseconds)


def _wait(given: Any) -> timedelta:
    duration = _duration(given)
    if not duration:
        raise ValueError("must be longer than 0, such as 250ms or 5s")
    return duration


def _size(given: Any) -> int:
    if type(given) is int and given > 0:
        return given
    allowed = "must be a size above 0 such as 512B, 64KiB, 10MiB or 1GiB"
    parts = _match(rf"({_WHOLE})(B|KiB|MiB|GiB)", given, allowed)
    size = _whole(parts[1], allowed) * _BYTES[parts[3]]
    if not 1 <= size <= MAX_WHOLE:
        raise ValueError(allowed)
    return size


def _decimal(given: Any, allowed: str, decimals: int = MONEY_DECIMALS) -> Decimal:
    """A number that is not negative, exactly as written: 0.15 is 15 hundredths, not a float near it."""
    is_number = isinstance(given, int | float | Decimal) and not isinstance(given, bool)
    # In digits alone: Python writes 0.0000001 as 1e-07.
    text = f"{Decimal(str(given)):f}" if is_number else given
    number = Decimal(_match(rf"{_WHOLE}(\.[0-9]{{1,30}})?", text, allowed)[0].replace("_", ""))
    if number > MAX_WHOLE or number != round(number, decimals):
        raise ValueError(allowed)
    return number


def _amount(given: Any) -> Decimal:
    allowed = "must be a number above 0 with at most 6 decimals; digits may be grouped with _"
    number = _decimal(given, allowed)
    if not number:
        raise ValueError(allowed)
    return number


def _price_of(units: str, decimals: int) -> tuple[PlainValidator, WithJsonSchema]:
    """USD for one of these units."""
    allowed = f"must be USD per {units}: a number from 0 to {PRICE_MAX} with at most {decimals} decimals"

    def read(given: Any) -> Decimal:
        number = _decimal(given, allowed, decimals)
        if number > PRICE_MAX:
            raise ValueError(allowed)
        return number

    return value_type(read, type="number", minimum=0, maximum=PRICE_MAX)


def _factor(given: Any) -> Decimal:
    allowed = f"must be a factor above 0 and up to {FACTOR_MAX}, with at most {FACTOR_DECIMALS} decimals, such as 1.1"
    number = _decimal(given, allowed, FACTOR_DECIMALS)
    if not 0 < number <= FACTOR_MAX:
        raise ValueError(allowed)
    return number


def _address(given: Any) -> Address:
    if isinstance(given, Address):
        return given
    allowed = "must be an address and a port from 0 to 65535, such as 0.0.0.0:8080, [::]:8080 or localhost:8080"
    parts = _match(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):([0-9]{1,5})", given, allowed)
    host, port = parts[1].strip("[]"), int(parts[2])
    if port > 65535 or not _is_host(host):
        raise ValueError(allowed)
    return Address(host, port)


def _addresses(given: Any) -> tuple[Address, ...]:
    several = given if isinstance(given, list | tuple) and not isinstance(given, Address) else [given]
    if not several:
        raise ValueError("must be an address, or a list of at least one")
    return tuple(_address(each) for each in several)


def _network(given: Any) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    if isinstance(given, ipaddress.IPv4Network | ipaddress.IPv6Network):
        return given
    allowed = "must be an address or a network such as 10.0.0.0/8 or fd00::/8, without bits set after the prefix"
    try:
        return ipaddress.ip_network(_match("[0-9A-Fa-f:./]{2,50}", given, allowed)[0])
    except ValueError:
        raise ValueError(allowed) from None


def _is_host(host: str) -> bool:
    if ":" not in host and not re.fullmatch(r"[0-9.]+", host):
        return is_host_name(host)
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _http_url(given: Any) -> str:
    allowed = "must be an http:// or https:// URL of a host, a path and perhaps a query, without user or fragment"
    url = _match(r"https?://[!-~]+", given, allowed)[0]
    try:
        parts = urlsplit(url)
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or "@" in parts.netloc or "#" in url:
        raise ValueError(allowed)
    address, mark, query = url.partition("?")
    return address.rstrip("/") + (mark + query if query else "")


def _store_url(given: Any) -> str:
    read_store_url(given if isinstance(given, str) else "")
    return str(given)


def _proxy_url(given: Any) -> str:
    text = given if isinstance(given, str) else ""
    if text == "none":
        return text
    try:
        read_proxy(text)
    except ValueError as error:
        raise ValueError(f"{error}, or none") from None
    return text


def _folder(given: Any) -> Path:
    if isinstance(given, Path):
        return given
    allowed = "must be the path of a folder that begins with /, such as /var/lib/gateway"
    return Path(_match(r"/[^\0]{0,1023}", given, allowed)[0])


def _timezone(given: Any) -> ZoneInfo:
    if isinstance(given, ZoneInfo):
        return given
    allowed = "must be a time zone of the IANA database, such as UTC, Europe/Berlin or Asia/Tokyo"
    try:
        return ZoneInfo(_match(r"[A-Za-z0-9_+/-]{1,64}", given, allowed)[0])
    except (KeyError, OSError, ValueError):
        raise ValueError(allowed) from None


def _moment(given: Any) -> date | datetime:
    if isinstance(given, date):
        return given
    allowed = "must be a date such as 2027-01-01 or a time such as 2027-01-01T18:00:00Z (RFC 3339)"
    written = _match(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt ][0-9:.]+([Zz]|[+-][0-9]{2}:[0-9]{2})?)?", given, allowed)
    try:
        return datetime.fromisoformat(written[0].upper()) if written[1] else date.fromisoformat(written[0])
    except ValueError:
        raise ValueError(allowed) from None


def read_expiry(given: Any) -> date | datetime | timedelta:
    """A moment, or a duration from now. Raises ValueError: what is allowed."""
    for read in (_duration, _moment):
        try:
            return read(given)
        except ValueError:
            continue
    raise ValueError("must be a duration such as 90d, a date such as 2027-01-01 or a time such as 2027-01-01T18:00:00Z")


def _endpoint_pattern(given: Any) -> str:
    allowed = f"must be the name of an endpoint or a glob that fits some, such as chat.completions or {_AN_ENDPOINT}"
    pattern = _match("[a-zA-Z0-9._*?-]{1,64}", given, allowed)[0]
    if not any(fnmatchcase(name, pattern) for name in ENDPOINT_NAMES):
        raise ValueError(f"{allowed}; the names are {', '.join(ENDPOINT_NAMES)}")
    return pattern


def _secret(given: Any) -> SecretStr:
    if isinstance(given, SecretStr):
        return given
    return SecretStr(_match("[!-~]*", given, "must be printable ASCII without spaces")[0])


def _secret_url(given: Any) -> SecretStr:
    """The URL of a webhook. It is never shown, because it is all that one needs to post there."""
    if isinstance(given, SecretStr):
        return given
    text = _match("https?://[!-~]{1,2000}", given, "must be an http:// or https:// URL")[0]
    try:
        read_base_url(text)
    except ValueError as error:
        raise ValueError(str(error)) from None
    return SecretStr(text)


def _webhook_secret(given: Any) -> SecretStr:
    if isinstance(given, SecretStr):
        return given
    allowed = "must be whsec_ and 24 to 64 random bytes in base64, as `openssl rand -base64 32` writes them"
    encoded = _match("whsec_([A-Za-z0-9+/]+={0,2})", given, allowed)[1]
    try:
        size = len(b64decode(encoded, validate=True))
    except ValueError:
        raise ValueError(allowed) from None
    if not 24 <= size <= 64:
        raise ValueError(allowed)
    return SecretStr(given)


def _percent(given: Any) -> int:
    allowed = "must be a part in percent from 1% to 100%, such as 80%"
    percent = int(_match("([1-9][0-9]{0,2})%", given, allowed)[1])
    if percent > 100:
        raise ValueError(allowed)
    return percent


def _audiences(given: Any) -> tuple[str, ...]:
    allowed = "must be the name of this gateway at the identity provider: text, or a list of some"
    listed = (given,) if isinstance(given, str) else given
    if not isinstance(listed, list | tuple) or not listed:
        raise ValueError(allowed)
    return tuple(_match("[!-~]{1,512}", each, allowed)[0] for each in listed)


def _algorithms(given: Any) -> tuple[str, ...]:
    if isinstance(given, list | tuple) and given and all(each in TOKEN_ALGORITHMS for each in given):
        return tuple(given)
    known = ", ".join(TOKEN_ALGORITHMS)
    raise ValueError(f"must be a list of some of {known}; HMAC (HS256) and none would let anyone make tokens")


def _sha256(given: Any) -> str:
    allowed = 'must be the SHA-256 of a key: 64 hexadecimal digits (printf %s "$KEY" | sha256sum)'
    return _match("[0-9A-Fa-f]{64}", given, allowed)[0].lower()


Count = Annotated[int, *value_type(_count, type="integer", minimum=1, maximum=MAX_WHOLE)]
Workers = Annotated[
    int | Literal["auto"],
    *value_type(read_workers, anyOf=[{"type": "integer", "minimum": 1, "maximum": MAX_WORKERS}, {"const": "auto"}]),
]
Switch = Annotated[bool, *value_type(_switch, type="boolean")]
Duration = Annotated[timedelta, *value_type(_duration, type="string", pattern=f"^{_WHOLE}(ms|s|m|h|d)$")]
Wait = Annotated[timedelta, *value_type(_wait, type="string", pattern=f"^{_WHOLE}(ms|s|m|h|d)$")]
ByteSize = Annotated[int, *value_type(_size, type="string", pattern=f"^{_WHOLE}(B|KiB|MiB|GiB)$")]
Amount = Annotated[Decimal, *value_type(_amount, type="number", exclusiveMinimum=0)]
DollarsPerMillion = Annotated[Decimal, *_price_of("million tokens", MONEY_DECIMALS)]
DollarsPerMillionCharacters = Annotated[Decimal, *_price_of("million characters", MONEY_DECIMALS)]
DollarsPerUnit = Annotated[Decimal, *_price_of("unit", UNIT_PRICE_DECIMALS)]
Factor = Annotated[Decimal, *value_type(_factor, type="number", exclusiveMinimum=0, maximum=FACTOR_MAX)]
_LISTEN = {"type": "string", "pattern": r"^.+:[0-9]{1,5}$"}
ListenAddress = Annotated[Address, *value_type(_address, **_LISTEN)]
ListenAddresses = Annotated[
    tuple[Address, ...],
    *value_type(_addresses, anyOf=[_LISTEN, {"type": "array", "items": _LISTEN, "minItems": 1}]),
]
HttpUrl = Annotated[str, *value_type(_http_url, type="string", pattern="^https?://")]
ProxyUrl = Annotated[str, *value_type(_proxy_url, type="string", pattern="^(none|http://.+)$")]
StoreUrl = Annotated[str, *value_type(_store_url, type="string", pattern=_STORE_SCHEMES)]
Folder = Annotated[Path, *value_type(_folder, type="string", pattern="^/")]
PemFile = Annotated[
    str,
    *text_of(r"/[^\x00-\x1f]{0,1000}", "must be the path of a file that begins with /, such as /etc/gateway/ca.pem"),
]
Timezone = Annotated[ZoneInfo, *value_type(_timezone, type="string", pattern="[A-Za-z]")]
Moment = Annotated[date | datetime, *value_type(_moment, type="string", pattern="^[0-9]{4}-")]
Secret = Annotated[SecretStr, *value_type(_secret, type="string")]
SecretUrl = Annotated[SecretStr, *value_type(_secret_url, type="string", pattern="^https?://")]
WebhookSecret = Annotated[SecretStr, *value_type(_webhook_secret, type="string", pattern="^whsec_")]
Percent = Annotated[int, *value_type(_percent, type="string", pattern="^([1-9][0-9]?|100)%$")]
TeamPattern = Annotated[
    str, *text_of(r"[A-Za-z0-9._*?\[\]!-]{1,64}", "must be a team's name or a glob such as search-*; `*` is everybody")
]
Sha256 = Annotated[str, *value_type(_sha256, type="string", pattern="^[0-9A-Fa-f]{64}$")]
ShortName = Annotated[
    str,
    *text_of(
        "[A-Za-z0-9][A-Za-z0-9._-]{0,63}", "must be 1 to 64 letters, digits, dots, dashes and underscores, no dot first"
    ),
]
TierName = Annotated[str, *text_of("[a-z0-9_-]{1,64}", "must be 1 to 64 small letters, digits, dashes and underscores")]
RegionName = Annotated[
    str, *text_of("[a-z0-9_-]{1,32}", "must be 1 to 32 small letters, digits, dashes and underscores, such as us")
]
ModelName = Annotated[str, *text_of(_MODEL, "must be 1 to 256 characters, none of them a control character")]
ModelPattern = Annotated[str, *text_of(_MODEL, "must be a model's name or a glob such as openai/*")]
EndpointPattern = Annotated[str, *value_type(_endpoint_pattern, type="string", pattern="[a-z*?]")]
BasePath = Annotated[str, *text_of("(/[!-~]{1,255})?", "must be a path such as /v1 or /anthropic/v1, or empty")]
CheckPath = Annotated[str, *text_of("/[!-~]{0,255}", "must be a path such as /models")]
HeaderName = Annotated[str, *text_of("[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}", "must be the name of an HTTP header")]
Issuer = Annotated[str, *text_of("[!-~]{1,512}", "must be the issuer as tokens have it, such as https://idp.example/")]
Audiences = Annotated[
    tuple[str, ...],
    *value_type(_audiences, anyOf=[{"type": "string"}, {"type": "array", "minItems": 1, "items": {"type": "string"}}]),
]
TokenAlgorithms = Annotated[
    tuple[str, ...], *value_type(_algorithms, type="array", minItems=1, items={"enum": list(TOKEN_ALGORITHMS)})
]
ClaimName = Annotated[str, *text_of("[!-~]{1,128}", "must be the name of a claim, such as email or realm_access.roles")]
GroupName = Annotated[str, *text_of(r"[^\x00-\x1f\x7f]{1,256}", "must be the name of a group as tokens have it")]
JwksPlace = Annotated[
    str,
    *text_of(
        r"https?://[!-~]{1,1000}|/[^\x00-\x1f]{1,1000}", "must be an http:// or https:// URL, or the path of a file"
    ),
]
IpNetwork = Annotated[
    ipaddress.IPv4Network | ipaddress.IPv6Network, *value_type(_network, type="string", pattern="[.:]")
]
Origin = Annotated[
    str,
    *text_of(
        r"[a-z][a-z0-9+.-]*://[a-z0-9._:\[\]-]+|\*",
        "must be an origin in lower case, such as https://chat.example.com, without a path, or *",
    ),
]
QueryName = Annotated[str, *text_of("[!-~]{1,128}", "must be the name of a query parameter: printable ASCII")]
# Helm reads the patterns of the schema by RE2, which repeats nothing more than 1,000 times.
QueryValue = Annotated[str, *text_of("[ -~]{0,512}[ -~]{0,512}", "must be text of printable ASCII")]
HeaderValue = Annotated[str, *text_of("[!-~]([ -~]*[!-~])?", "must be printable ASCII, without spaces at its ends")]
