"""Releases, the gates that they must pass, promotion and pins."""
