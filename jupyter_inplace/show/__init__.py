"""From a report to something to look at: text, static HTML, the display bundle. Nothing here reads but the report."""
