"""Other frameworks that take part in a watch, and programs that import theirs late."""
