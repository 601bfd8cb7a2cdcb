"""Schemathesis against /openapi.json of both listeners: what is sent is made from the descriptions, and what comes is
compared with them. `make test-openapi` runs it."""
