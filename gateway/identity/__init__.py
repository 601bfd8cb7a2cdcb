"""Callers that are not in the configuration: stored keys and tokens of identity providers; and what else operators keep
in the store: sessions, grants and the audit of changes."""
