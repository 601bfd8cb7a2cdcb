"""The scripted upstream: an OpenAI-compatible server for demonstrations, tests and benchmarks.

It answers as told (`Script`) and keeps account of what it served (`Truth`).
"""

from gateway.demo.script import Script
from gateway.demo.truth import Truth
from gateway.demo.upstream import DemoUpstream

__all__ = ["DemoUpstream", "Script", "Truth"]
