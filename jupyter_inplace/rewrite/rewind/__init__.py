"""Restores what a cell changed."""
