"""Every error of a request, as one tree.

A class has its status, type, code, responsible party and whether to retry. `web/errors.py` renders an error and the
pipeline logs it; no other module interprets it. docs/errors.md has the table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Self

if TYPE_CHECKING:
    from gateway.core.endpoints import Dialect
    from gateway.core.limit_status import WrittenRefusal
    from gateway.core.reservation import Refusal

CODINGS = "gzip, deflate, br, zstd"
"""Content codings in which a request's body may come."""


class Blame(StrEnum):
    """Who is responsible for an error, and so which team is called."""

    CALLER = "caller"
    POLICY = "policy"
    UPSTREAM = "upstream"
    GATEWAY = "gateway"


class Failure(NamedTuple):
    """Who is responsible, and for what: the code of an error of the gateway's, or what the upstream itself sent:
    `passed_on` for its answer, `error_event` for an event inside its stream."""

    blame: Blame
    code: str


class GatewayError(Exception):
    """An answer other than the one that was asked for.

    `message` says what to do, `param` names the field at fault, `retry_after_ms`
    says when another try can succeed.
    """

    status: ClassVar[int] = 500
    type: str = "server_error"
    code: ClassVar[str] = "internal_error"
    blame: ClassVar[Blame] = Blame.GATEWAY
    failure: ClassVar[Failure] = Failure(blame, code)
    """Both together, made once for each class: they are asked for several times for each error."""
    should_retry: bool | None = None
    headers: Sequence[tuple[str, str]] = ()
    """More headers of the answer: what its status asks for."""
    limit_lines: str = ""
    """The headers that report the caller's limits, as lines, each with a line break in front of it."""
    ends_connection: ClassVar[bool] = False
    """Whether no further request of the client is served on its connection."""
    fields: str = ""
    """The header lines of its answer, where web/errors.py has written them for others who get the same error."""
    bodies: Mapping[Dialect, bytes] = MappingProxyType({})
    """So the bodies, for each API."""
    is_shared: bool = False
    """Whether all who are refused alike get this one, so that its answer is written once."""

    def __init_subclass__(cls) -> None:
        cls.failure = Failure(cls.blame, cls.code)

    def __init__(self, message: str, *, param: str | None = None, retry_after_ms: int | None = None) -> None:
        self.message = message  # It is in `args` already: an exception is made with them.
        self.param = param
        self.retry_after_ms = retry_after_ms

    def shared(self) -> Self:
        """The same, for all who are refused alike. It is raised `with_traceback(None)`, or it would keep the frames of
        each of them."""
        self.is_shared = True
        return self


class InternalError(GatewayError):
    """A defect of the gateway itself: logged with its traceback, shown without."""


# Caller: the request cannot be served as it is.

_ASK_FOR_BEARER = (("www-authenticate", "Bearer"),)
"""RFC 9110, section 15.5.2."""


class CallerError(GatewayError):
    status = 400
    type = "invalid_request_error"
    blame = Blame.CALLER


class KeyMissing(CallerError):
    status = 401
    code = "missing_api_key"
    headers = _ASK_FOR_BEARER
    should_retry = False


class KeyUnknown(CallerError):
    """Unknown, malformed or disabled: the answer does not say which of a key. `why` does, in a word, for the log."""

    status = 401
    code = "invalid_api_key"
    headers = _ASK_FOR_BEARER
    should_retry = False
    """Claude Code sends a request with a wrong key eleven times, in silence, unless it learns that this cannot help."""

    def __init__(self, message: str, *, why: str = "unknown") -> None:
        super().__init__(message)
        self.why = why


class KeyExpired(CallerError):
    """A client whose keys or tokens a program makes (`apiKeyHelper` of Claude Code) has a new one for the next try."""

    status = 401
    code = "expired_api_key"
    headers = _ASK_FOR_BEARER

    def __init__(self, message: str, *, why: str = "expired") -> None:
        super().__init__(message)
        self.why = why


class BodyUnreadable(CallerError):
    code = "invalid_json"


class FormUnreadable(CallerError):
    code = "invalid_form"


class FieldInvalid(CallerError):
    code = "invalid_value"


class RequestMalformed(CallerError):
    """Not HTTP as RFC 9112 has it."""

    code = "invalid_request"
    ends_connection = True


class TooLarge(CallerError):
    """`size` is the length of the body in bytes, where the client has announced it or all has come."""

    status = 413
    code = "request_too_large"

    def __init__(self, message: str, *, size: int | None = None) -> None:
        super().__init__(message)
        self.size = size


class EncodingUnsupported(CallerError):
    """A content coding of the body that the gateway does not decode."""

    status = 415
    code = "unsupported_encoding"
    headers = (("accept-encoding", CODINGS),)  # RFC 9110, section 15.5.16.


class TransferCodingUnsupported(CallerError):
    """A transfer coding other than chunked (RFC 9112, section 6.1)."""

    status = 501
    code = "unsupported_transfer_coding"


class VersionUnsupported(CallerError):
    """Another version of HTTP than 1.0 and 1.1."""

    status = 505
    code = "unsupported_http_version"


class ModelUnknown(CallerError):
    """Unknown or not allowed: the answer is the same, so that names cannot be probed. `asked` is the model; `why` says
    which, in a word, for the log."""

    status = 404
    code = "model_not_found"

    def __init__(self, message: str, *, param: str | None = None, asked: str = "", why: str = "model_unknown") -> None:
        super().__init__(message, param=param)
        self.asked = asked
        self.why = why


class ResponseUnknown(CallerError):
    """Unknown, expired or another team's: the answer is the same, so that ids cannot be probed."""

    status = 404
    code = "response_not_found"


class PreviousResponseUnknown(CallerError):
    """The same for the response that a request continues from; clients know it by this code."""

    status = 404
    code = "previous_response_not_found"


class ConversationUnknown(CallerError):
    """The same for a conversation."""

    status = 404
    code = "conversation_not_found"


class AdminForbidden(CallerError):
    """The admin API is closed: no token is configured."""

    status = 403
    code = "admin_forbidden"


class UrlUnknown(CallerError):
    status = 404
    code = "unknown_url"


class UpgradeRequired(CallerError):
    """The client asks for a WebSocket: agents that learn it from this status go on over HTTP at once."""

    status = 426
    code = "upgrade_required"
    headers = (("upgrade", "HTTP/1.1"), ("connection", "upgrade, close"))  # RFC 9110, sections 7.8 and 15.5.22.
    ends_connection = True


class MethodNotAllowed(CallerError):
    """`allow` names the methods that the path takes."""

    status = 405
    code = "method_not_allowed"

    def __init__(self, message: str, *, allow: str) -> None:
        super().__init__(message)
        self.headers = (("allow", allow),)


# Policy: a limit refuses.


class LimitRefusal(GatewayError):
    """A limit binds; `type` is its meter's family: requests, tokens or concurrency. `refusal_error` gives all requests
    that are refused alike in one millisecond the same one."""

    status = 429
    type = "requests"
    code = "rate_limit_exceeded"
    blame = Blame.POLICY
    refusal: Refusal | None = None
    """What it tells."""
    written: WrittenRefusal | None = None
    """What it says, however often it is repeated."""
    left: str = ""
    """The time that is left, as its message has it."""
    bodies: dict[Dialect, bytes]
    logged: bytes = b""
    """What the log says of it, once telemetry/log.py has written that."""


class RateExceeded(LimitRefusal):
    """A rate is used up, or what is left is held by requests in flight: try again soon."""


class RequestExceedsLimit(LimitRefusal):
    """The request needs more than the limit ever holds: no retry can succeed."""

    code = "request_exceeds_limit"
    should_retry = False


class QuotaSpent(LimitRefusal):
    type = "insufficient_quota"
    code = "insufficient_quota"
    should_retry = False


# Upstream: the model server is responsible.


class UpstreamError(GatewayError):
    """`outcome` says in more detail than the code how it went, for metrics: one of a closed list."""

    status = 502
    blame = Blame.UPSTREAM
    outcome: str = ""

    @property
    def reason(self) -> str:
        """The outcome, or the code where there is none."""
        return self.outcome or self.code


class UpstreamUnreachable(UpstreamError):
    """Refused the connection, or broke before the first byte of an answer."""

    code = "upstream_unreachable"


class UpstreamBusy(UpstreamError):
    """All connections that the caller's team may have there are in use: nothing was sent."""

    status = 503
    code = "upstream_busy"


class UpstreamBroke(UpstreamError):
    """Broke after the answer began; the client has a part of it."""

    code = "upstream_broke"


class UpstreamTimedOut(UpstreamError):
    status = 504
    code = "upstream_timeout"


class UpstreamRefused(UpstreamError):
    """The upstream refused after the client's stream had begun with a keep-alive: its status came too late."""

    code = "upstream_refused"


class UpstreamAuthFailed(UpstreamError):
    """The upstream rejects the gateway's own credentials, by whatever status: trying again does not help."""

    code = "upstream_auth_failed"
    should_retry = False


class NoTarget(UpstreamError):
    status = 503
    code = "no_upstream_available"


# Gateway: its own state.


class StoreUnavailable(GatewayError):
    status = 503
    code = "store_unavailable"


class RequestCancelled(GatewayError):
    """An operator has ended the request: its client must not send it again by itself."""

    status = 503
    code = "request_cancelled"
    blame = Blame.POLICY
    should_retry = False


class IssuerUnavailable(GatewayError):
    """No key of an identity provider was ever fetched, so that no token of it can be verified."""

    status = 503
    code = "issuer_unavailable"


class ShuttingDown(GatewayError):
    """Another gateway answers at once, or this one when it is up again."""

    status = 503
    code = "shutting_down"
    ends_connection = True

    def __init__(self, message: str) -> None:
        super().__init__(message, retry_after_ms=1000)


class Overloaded(GatewayError):
    """The bodies of other requests use all of `max_body_memory`, there is no space on disk, or too many requests of a
    team wait to begin."""

    status = 503
    code = "overloaded"


class NoWorker(GatewayError):
    """No process of this gateway answers: they are starting, or die as soon as they have started."""

    status = 503
    code = "no_worker"


class ClientGone(GatewayError):
    """The client left. This answer is not read: it is in the log and the metrics.

    499 is what nginx logs for it (ngx_http_request.h, NGX_HTTP_CLIENT_CLOSED_REQUEST).
    """

    status = 499
    code = "client_gone"
    blame = Blame.CALLER
