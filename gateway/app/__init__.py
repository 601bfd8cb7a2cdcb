"""The composition root: settings become objects, objects become running servers. The only reader of settings."""
