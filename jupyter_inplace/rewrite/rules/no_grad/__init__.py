"""Rules about grad mode."""
