"""From what was found to the rows of a report."""
