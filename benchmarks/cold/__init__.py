"""Parts of `shortlist bench cold_start`: data, training, requests, compared methods, figures."""
