"""The types of settings: durations, sizes, counts, money, addresses, names, dates.

Each reads the text of the file (or a plain value, for settings built in code). If it cannot, it says what is allowed
and never what it was given. It also describes itself to JSON Schema.
"""

from __future__ import annotations

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
from gateway.core.http_syntax import is_address, is_host, read_base_url
from gateway.core.issuers import TOKEN_ALGORITHMS
from gateway.core.networks import Network
from gateway.core.proxies import read_proxy
from gateway.core.store_url import SCHEMES, read_store_url
from gateway.settings.value_readers import (
    MAX_WHOLE,
    MAX_WORKERS,
    MODEL_NAME,
    MODEL_PATTERN,
    MONEY_DECIMALS,
    SHORT_NAME,
    WHOLE,
    TextForm,
    decimal_in,
    matched,
    read_amount,
    read_count,
    read_duration,
    read_moment,
    read_network,
    read_sha256,
    read_switch,
    read_workers,
    whole_number,
)

UNIT_PRICE_DECIMALS = 9
"""Of the price of one search or one second of audio: 0.36 USD an hour is 0.0001 USD a second."""

FACTOR_DECIMALS, FACTOR_MAX = 3, 100
"""Of what a region multiplies prices by: with the decimals of a price, amounts are whole femto-dollars."""

PRICE_MAX = 1_000_000
"""USD for a million tokens, or for one unit."""

_STORE_SCHEMES = "^(" + "|".join(re.escape(scheme) for scheme in SCHEMES) + ")"
_AN_ENDPOINT = "gemini.*"
_BYTES = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}


def text_of(pattern: str, allowed: str) -> tuple[PlainValidator, WithJsonSchema]:
    """Text that fits a pattern as a whole."""
    return value_type(TextForm(pattern, allowed).read, type="string", pattern=f"^({pattern})$")


def value_type(read: Callable[[Any], Any], **schema: Any) -> tuple[PlainValidator, WithJsonSchema]:
    return PlainValidator(read), WithJsonSchema(schema)


def _wait(given: Any) -> timedelta:
    duration = read_duration(given)
    if not duration:
        raise ValueError("must be longer than 0, such as 250ms or 5s")
    return duration


def _size(given: Any) -> int:
    if type(given) is int and given > 0:
        return given
    allowed = "must be a size above 0 such as 512B, 64KiB, 10MiB or 1GiB"
    parts = matched(rf"({WHOLE})(B|KiB|MiB|GiB)", given, allowed)
    size = whole_number(parts[1], allowed) * _BYTES[parts[3]]
    if not 1 <= size <= MAX_WHOLE:
        raise ValueError(allowed)
    return size


def _price_of(units: str, decimals: int) -> tuple[PlainValidator, WithJsonSchema]:
    """USD for one of these units."""
    allowed = f"must be USD per {units}: a number from 0 to {PRICE_MAX} with at most {decimals} decimals"

    def read(given: Any) -> Decimal:
        number = decimal_in(given, allowed, decimals)
        if number > PRICE_MAX:
            raise ValueError(allowed)
        return number

    return value_type(read, type="number", minimum=0, maximum=PRICE_MAX)


def _factor(given: Any) -> Decimal:
    allowed = f"must be a factor above 0 and up to {FACTOR_MAX}, with at most {FACTOR_DECIMALS} decimals, such as 1.1"
    number = decimal_in(given, allowed, FACTOR_DECIMALS)
    if not 0 < number <= FACTOR_MAX:
        raise ValueError(allowed)
    return number


def _address(given: Any) -> Address:
    if isinstance(given, Address):
        return given
    allowed = "must be an address and a port from 0 to 65535, such as 0.0.0.0:8080, [::]:8080 or localhost:8080"
    parts = matched(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):([0-9]{1,5})", given, allowed)
    host, port = parts[1].strip("[]"), int(parts[2])
    if port > 65535 or not _is_bindable(host):
        raise ValueError(allowed)
    return Address(host, port)


def _addresses(given: Any) -> tuple[Address, ...]:
    several = given if isinstance(given, list | tuple) and not isinstance(given, Address) else [given]
    if not several:
        raise ValueError("must be an address, or a list of at least one")
    return tuple(_address(each) for each in several)


def _is_bindable(host: str) -> bool:
    """What is written in digits alone is an address: the system would take 10.1 for 10.0.0.1."""
    return is_address(host) if re.fullmatch(r"[0-9.]+", host) else is_host(host)


def _http_url(given: Any) -> str:
    allowed = "must be an http:// or https:// URL of a host, a path and perhaps a query, without user or fragment"
    url = matched(r"https?://[!-~]+", given, allowed)[0]
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
    return Path(matched(r"/[^\0]{0,1023}", given, allowed)[0])


def _timezone(given: Any) -> ZoneInfo:
    if isinstance(given, ZoneInfo):
        return given
    allowed = "must be a time zone of the IANA database, such as UTC, Europe/Berlin or Asia/Tokyo"
    try:
        return ZoneInfo(matched(r"[A-Za-z0-9_+/-]{1,64}", given, allowed)[0])
    except (KeyError, OSError, ValueError):
        raise ValueError(allowed) from None


def _endpoint_pattern(given: Any) -> str:
    allowed = f"must be the name of an endpoint or a glob that fits some, such as chat.completions or {_AN_ENDPOINT}"
    pattern = matched("[a-zA-Z0-9._*?-]{1,64}", given, allowed)[0]
    if not any(fnmatchcase(name, pattern) for name in ENDPOINT_NAMES):
        raise ValueError(f"{allowed}; the names are {', '.join(ENDPOINT_NAMES)}")
    return pattern


def _secret(given: Any) -> SecretStr:
    if isinstance(given, SecretStr):
        return given
    return SecretStr(matched("[!-~]*", given, "must be printable ASCII without spaces")[0])


def _secret_url(given: Any) -> SecretStr:
    """The URL of a webhook. It is never shown, because it is all that one needs to post there."""
    if isinstance(given, SecretStr):
        return given
    text = matched("https?://[!-~]{1,2000}", given, "must be an http:// or https:// URL")[0]
    try:
        read_base_url(text)
    except ValueError as error:
        raise ValueError(str(error)) from None
    return SecretStr(text)


def _webhook_secret(given: Any) -> SecretStr:
    if isinstance(given, SecretStr):
        return given
    allowed = "must be whsec_ and 24 to 64 random bytes in base64, as `openssl rand -base64 32` writes them"
    encoded = matched("whsec_([A-Za-z0-9+/]+={0,2})", given, allowed)[1]
    try:
        size = len(b64decode(encoded, validate=True))
    except ValueError:
        raise ValueError(allowed) from None
    if not 24 <= size <= 64:
        raise ValueError(allowed)
    return SecretStr(given)


def _percent(given: Any) -> int:
    allowed = "must be a part in percent from 1% to 100%, such as 80%"
    percent = int(matched("([1-9][0-9]{0,2})%", given, allowed)[1])
    if percent > 100:
        raise ValueError(allowed)
    return percent


def _audiences(given: Any) -> tuple[str, ...]:
    allowed = "must be the name of this gateway at the identity provider: text, or a list of some"
    listed = (given,) if isinstance(given, str) else given
    if not isinstance(listed, list | tuple) or not listed:
        raise ValueError(allowed)
    return tuple(matched("[!-~]{1,512}", each, allowed)[0] for each in listed)


def _algorithms(given: Any) -> tuple[str, ...]:
    if isinstance(given, list | tuple) and given and all(each in TOKEN_ALGORITHMS for each in given):
        return tuple(given)
    known = ", ".join(TOKEN_ALGORITHMS)
    raise ValueError(f"must be a list of some of {known}; HMAC (HS256) and none would let anyone make tokens")


Count = Annotated[int, *value_type(read_count, type="integer", minimum=1, maximum=MAX_WHOLE)]
Workers = Annotated[
    int | Literal["auto"],
    *value_type(read_workers, anyOf=[{"type": "integer", "minimum": 1, "maximum": MAX_WORKERS}, {"const": "auto"}]),
]
Switch = Annotated[bool, *value_type(read_switch, type="boolean")]
Duration = Annotated[timedelta, *value_type(read_duration, type="string", pattern=f"^{WHOLE}(ms|s|m|h|d)$")]
Wait = Annotated[timedelta, *value_type(_wait, type="string", pattern=f"^{WHOLE}(ms|s|m|h|d)$")]
ByteSize = Annotated[int, *value_type(_size, type="string", pattern=f"^{WHOLE}(B|KiB|MiB|GiB)$")]
Amount = Annotated[Decimal, *value_type(read_amount, type="number", exclusiveMinimum=0)]
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
Moment = Annotated[date | datetime, *value_type(read_moment, type="string", pattern="^[0-9]{4}-")]
Secret = Annotated[SecretStr, *value_type(_secret, type="string")]
SecretUrl = Annotated[SecretStr, *value_type(_secret_url, type="string", pattern="^https?://")]
WebhookSecret = Annotated[SecretStr, *value_type(_webhook_secret, type="string", pattern="^whsec_")]
Percent = Annotated[int, *value_type(_percent, type="string", pattern="^([1-9][0-9]?|100)%$")]
TeamPattern = Annotated[
    str, *text_of(r"[A-Za-z0-9._*?\[\]!-]{1,64}", "must be a team's name or a glob such as search-*; `*` is everybody")
]
Sha256 = Annotated[str, *value_type(read_sha256, type="string", pattern="^[0-9A-Fa-f]{64}$")]
ShortName = Annotated[str, *text_of(*SHORT_NAME)]
TierName = Annotated[str, *text_of("[a-z0-9_-]{1,64}", "must be 1 to 64 small letters, digits, dashes and underscores")]
RegionName = Annotated[
    str, *text_of("[a-z0-9_-]{1,32}", "must be 1 to 32 small letters, digits, dashes and underscores, such as us")
]
ModelName = Annotated[str, *text_of(*MODEL_NAME)]
ModelPattern = Annotated[str, *text_of(*MODEL_PATTERN)]
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
IpNetwork = Annotated[Network, *value_type(read_network, type="string", pattern="[.:]")]
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
