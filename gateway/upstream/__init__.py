"""The wire to the model servers: connections, pools and the standing of each server."""
