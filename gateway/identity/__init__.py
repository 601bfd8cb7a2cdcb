"""Callers that are not in the configuration: keys that are kept in the store, and the audit of changes."""
