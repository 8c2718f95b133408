"""Runs programs on a copy of this process's state, so that nothing they do comes back but their results."""
