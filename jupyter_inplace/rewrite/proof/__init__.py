"""Proofs: runs each rewrite of a cell on a copy of the state from before the cell, and compares it with a reference."""
