"""Proofs: each rewrite of a cell is run on a copy of the state from before the cell, and held against a reference."""
