"""Backward calls, optimizers, custom Functions and transforms, seen while they run."""
