"""Business rules: compiled for a catalogue, then applied to one list (docs/rules.md)."""
