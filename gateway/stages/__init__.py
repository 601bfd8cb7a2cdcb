"""Verbs: one module for each step of the journey; none of them knows another."""
