"""Rewrites of a cell for its harmful writes (`candidates`), and the proof of each by running it.

Nothing is imported here: `preserve` needs no LibCST, the rules need no torch.
"""
