"""The gateway: the entry point between an organisation's programs and its language models.

Read `pipeline.py` first: it is a request's whole way on one screen.
"""

__version__ = "0.1.0"
