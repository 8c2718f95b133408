"""One backward call explained: what it read that had been overwritten, and whom that hurts."""
