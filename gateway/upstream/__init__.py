"""The HTTP client of the model servers: its connections, its pools, and the health checks."""
