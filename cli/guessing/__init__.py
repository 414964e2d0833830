"""`shortlist init`: guesses columns and settings from samples of files."""
