"""The store in Redis, for any number of gateways. No other package imports hiredis."""

from gateway.store.in_redis.client import Observer
from gateway.store.in_redis.store import RedisOptions, RedisStore

__all__ = ["Observer", "RedisOptions", "RedisStore"]
