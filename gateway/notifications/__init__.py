"""Notifications: events that operators are informed of, and their delivery."""
