"""Proofs: each rewrite of a cell is run on a copy of the state from before the cell, and held against a reference."""

from jupyter_inplace.rewrite.proof.prove import Candidate, prove

__all__ = ["Candidate", "prove"]
