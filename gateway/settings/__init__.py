"""YAML and environment in, frozen and validated values out; every error with file and line.

What a process that serves imports, because operators' requests are checked with it, is free of pydantic: `diagnostics`,
`value_readers`, `written_limit`, `request_section`, `stored_keys`, `grants` and `text_change`.
"""
