"""YAML and environment in, frozen and validated values out; every error with file and line."""

from gateway.settings.demo import DEMO_MODEL, demo_settings
from gateway.settings.loading import Loaded, load, parse
from gateway.settings.problems import Problem, SettingsInvalid
from gateway.settings.schema import json_schema
from gateway.settings.shape import Settings

__all__ = [
    "DEMO_MODEL",
    "Loaded",
    "Problem",
    "Settings",
    "SettingsInvalid",
    "demo_settings",
    "json_schema",
    "load",
    "parse",
]
