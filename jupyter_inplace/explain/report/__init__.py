"""Makes the rows of a report from the facts that were found."""
