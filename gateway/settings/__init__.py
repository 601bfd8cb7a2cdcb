"""YAML and environment in, frozen and validated values out; every error with file and line."""

from gateway.settings.diagnostics import Diagnostic, SettingsInvalid
from gateway.settings.loading import DEMO_MODEL, Loaded, demo_settings, load, located, parse
from gateway.settings.models import Settings
from gateway.settings.schema import json_schema

__all__ = [
    "DEMO_MODEL",
    "Diagnostic",
    "Loaded",
    "Settings",
    "SettingsInvalid",
    "demo_settings",
    "json_schema",
    "load",
    "located",
    "parse",
]
