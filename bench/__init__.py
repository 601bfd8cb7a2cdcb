"""Measures speed and memory of the gateway beside the same load sent straight to its upstream."""
