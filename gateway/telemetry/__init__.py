"""The wire to the operators: one log line a request, and metrics."""
