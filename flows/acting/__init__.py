"""Executes what the board of guardrails decided, and keeps alarms with their evidence."""
