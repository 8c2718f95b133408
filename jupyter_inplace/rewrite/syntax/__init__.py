"""The syntax of a cell (LibCST): finding and editing it, and what it tells about names and values."""
