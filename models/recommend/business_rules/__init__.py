"""Business rules, such as pins and caps: compiled for a catalogue, then applied to one list.

See docs/rules.md.
"""
