"""The silent ways of writing, one a file."""
