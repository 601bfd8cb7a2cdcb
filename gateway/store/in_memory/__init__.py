"""The store kept in this process: for one gateway alone, for demos and for tests."""

from gateway.store.in_memory.store import InMemoryStore

__all__ = ["InMemoryStore"]
