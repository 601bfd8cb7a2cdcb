"""The gateway: the entry point between an organisation's programs and its language models.

Read `pipeline.py` first: it calls the stages of a request in their order.
"""

__version__ = "0.1.0"
