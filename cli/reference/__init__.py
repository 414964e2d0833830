"""Generates docs/reference from the code: keys, settings, commands, metrics, figures, features.

To update all pages: `python -m cli.reference`. A test checks that they are up to date.
"""
