"""What LiteLLM is told of a key: limits that no load reaches."""

from litellm.proxy._types import UserAPIKeyAuth, hash_token


async def authenticate(request, api_key: str) -> UserAPIKeyAuth:
    return UserAPIKeyAuth(
        api_key=hash_token(api_key), rpm_limit=100_000_000, tpm_limit=2_000_000_000, max_parallel_requests=100_000
    )
