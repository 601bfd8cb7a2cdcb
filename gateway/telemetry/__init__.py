"""What operators see: one log line a request, and metrics."""
