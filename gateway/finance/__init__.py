"""Money outside of a request: prices compared with a catalogue."""
