"""Results to look at: one HTML page a lens, and a catalogue of many."""
