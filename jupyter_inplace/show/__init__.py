"""What a report looks like: text, static HTML, the panel, the display bundle. Code in here reads the report and nothing else."""
