"""Analyses each call of `tape.gradient` by asking the tape again, and adds the findings to the report."""
