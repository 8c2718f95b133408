"""Rewrites of cells with tapes, and their proofs. Making rewrites does not import TensorFlow: they are text edits."""
