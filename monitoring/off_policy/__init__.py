"""Off-policy evaluation: what lists that were never shown would have got (docs/off-policy.md)."""
