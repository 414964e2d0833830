"""Guesses the meaning of the columns of unknown files, from their names and values."""
