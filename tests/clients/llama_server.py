"""llama.cpp's own server: `llama_server.py MODEL PORT WHAT` says "serving", and serves until it is killed.

WHAT is `answers` or `embeddings`: it does not do both.
"""

from __future__ import annotations

import sys
import threading

import xllamacpp


def main(model: str, port: str, what: str) -> None:
    asked = xllamacpp.CommonParams()
    asked.model.path = model
    asked.model_alias = {"tiny"}
    asked.hostnames, asked.port = ["127.0.0.1"], int(port)
    asked.n_parallel, asked.n_ctx = 2, 2 * 8192
    asked.cpuparams.n_threads = asked.cpuparams_batch.n_threads = 1
    asked.use_jinja = asked.offline = asked.endpoint_metrics = True
    asked.warmup = False
    if what == "embeddings":
        asked.embedding = True
        asked.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    asked.api_keys = ["upstream-secret"]
    _server = xllamacpp.Server(asked)
    sys.stdout.write("serving\n")
    sys.stdout.flush()
    threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
