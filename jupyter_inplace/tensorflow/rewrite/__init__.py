"""Rewrites of cells with tapes, and their proofs. Making them imports no TensorFlow: they are edits of a text."""

from jupyter_inplace.tensorflow.rewrite.fixes import fixes, wanted

__all__ = ["fixes", "wanted"]
