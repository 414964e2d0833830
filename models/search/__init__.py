"""Search for items by text: full-text index, query vectors, and the training of query vectors."""
