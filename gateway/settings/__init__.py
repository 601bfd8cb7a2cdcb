"""YAML and environment in, frozen and validated values out; every error with file and line."""
