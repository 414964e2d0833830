"""Detection bench: faults in recorded closed-loop logs, and who notices them."""
