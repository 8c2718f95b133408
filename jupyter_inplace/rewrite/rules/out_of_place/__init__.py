"""Rules that make a new tensor in place of a write."""
