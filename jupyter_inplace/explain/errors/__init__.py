"""Torch errors that a write caused: rejected writes, failed version checks, and their tracebacks."""
