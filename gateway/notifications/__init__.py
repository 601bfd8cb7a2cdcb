"""Notifications: what operators want to know without asking, and how it reaches them."""
