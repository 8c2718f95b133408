"""Putting back what a cell changed."""
