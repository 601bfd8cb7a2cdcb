"""Counters, holds and the ledger: one contract, two backends."""
