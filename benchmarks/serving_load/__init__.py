"""Parts of `shortlist bench serving`: a home with any number of items, and the load generator."""
