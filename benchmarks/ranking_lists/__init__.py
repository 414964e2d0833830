"""Parts of `shortlist bench ranking`: the log of shown lists, their features, methods, figures."""
