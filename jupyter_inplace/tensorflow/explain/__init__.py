"""What it means: each call of `tape.gradient` asked once more, and what it adds to the report."""
