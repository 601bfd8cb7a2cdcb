"""What a worker answers to its supervisor over the control channel."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import msgspec

from gateway.app.gateway import Gateway
from gateway.runtime.control_channel import Handler
from gateway.web.admin_routes import AdminRequest


def control_handlers(gateway: Gateway) -> Mapping[str, Handler]:
    """By the kind of request: AdminHandlers, encoded."""
    admin = gateway.admin

    async def metrics(_body: bytes) -> bytes:
        return await gateway.packed_metrics()

    async def answer_admin_request(body: bytes) -> bytes:
        return _ENCODER.encode(await admin.admin_api(msgspec.msgpack.decode(body, type=AdminRequest)))

    def encoded(problems: Callable[[], Awaitable[list[str]]]) -> Handler:
        async def handle(_body: bytes) -> bytes:
            return _ENCODER.encode(await problems())

        return handle

    liveness, readiness = encoded(admin.liveness_problems), encoded(admin.readiness_problems)

    async def refuse_stranger(body: bytes) -> bytes:
        refusal = await admin.refuse_stranger(msgspec.msgpack.decode(body, type=AdminRequest))
        return _ENCODER.encode(refusal)

    return {
        "metrics": metrics,
        "liveness": liveness,
        "readiness": readiness,
        "admin": answer_admin_request,
        "refuse_stranger": refuse_stranger,
    }


_ENCODER = msgspec.msgpack.Encoder()
