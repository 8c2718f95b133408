"""Errors of torch that a write caused: refusals, failed version checks, and their tracebacks."""
