"""TensorZero's gateway as its wheel has it: `tensorzero_gateway.py CONFIG REDIS_URL PORT_FILE`. It chooses its port."""

import signal
import sys
from pathlib import Path
from urllib.parse import urlsplit

from tensorzero.tensorzero import _start_http_gateway

config, redis, port_file = sys.argv[1:]
gateway = _start_http_gateway(
    config_file=config, clickhouse_url=None, postgres_url=None, valkey_url=redis, async_setup=False
)
Path(port_file).write_text(str(urlsplit(gateway.base_url).port))
signal.sigwait({signal.SIGTERM, signal.SIGINT})
