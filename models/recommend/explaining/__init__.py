"""Why an item is shown: reasons, and what each stage did with it."""
