"""What operators see: one log line for each request, metrics, traces and request records."""
