"""The store in the memory of this process: for a single gateway, for demos and for tests."""

from gateway.store.in_memory.store import InMemoryStore

__all__ = ["InMemoryStore"]
