"""Rules that move a statement."""
