"""Notifications: what operators are told without asking, and how it reaches them."""
