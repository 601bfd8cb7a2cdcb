"""The scripted upstream: an OpenAI-compatible server for demonstrations, tests and benchmarks.

It answers by a `DemoScript` and counts what it served (`Truth`).
"""

from gateway.demo.script import DemoScript
from gateway.demo.server import DemoUpstream
from gateway.demo.truth import Truth

__all__ = ["DemoScript", "DemoUpstream", "Truth"]
