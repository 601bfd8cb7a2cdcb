"""The wire to counters, holds and the ledger: one contract, several keepers."""
