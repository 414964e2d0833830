"""Parts of `shortlist bench content`: data sets, variants, figures, image topics."""
