"""What the silent ways of writing did, where the common explanation does not serve."""
