"""The HTTP client of the model servers: connections, pools and health checks."""
