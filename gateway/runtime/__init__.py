"""The process: background tasks, worker processes and their control channel, signals, shutdown."""
