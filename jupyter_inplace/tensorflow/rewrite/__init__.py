"""Rewrites of cells with tapes, and their proofs. Making them imports no TensorFlow: they are edits of a text."""
