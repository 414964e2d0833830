"""The board: all guardrails together, with one budget of false alarms."""
