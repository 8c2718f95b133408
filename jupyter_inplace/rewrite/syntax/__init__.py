"""The syntax of a cell (LibCST): found, edited, and what is known of its names and values."""
