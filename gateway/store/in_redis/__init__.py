"""The store kept in Redis, for any number of gateways. The one place that imports redis."""

from gateway.store.in_redis.client import Observer
from gateway.store.in_redis.store import RedisOptions, RedisStore

__all__ = ["Observer", "RedisOptions", "RedisStore"]
