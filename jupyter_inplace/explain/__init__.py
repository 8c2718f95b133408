"""What it means: graphs, tasks, leaves, gradients, verdicts. From a record to a Report."""
