"""Runs programs on a copy of the state of this process, which gets back nothing but their results."""
