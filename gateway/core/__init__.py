"""Nouns and pure machines: values, bytes and arithmetic, without I/O, clock, dice or tasks."""
