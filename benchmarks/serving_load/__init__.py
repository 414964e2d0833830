"""Parts of `shortlist bench serving`: a home of any size, and the load."""
