"""Money outside of a request: prices compared with a catalogue, the ledger compared with a provider's bill."""
