"""From a record to a Report: graphs, tasks, leaves, gradients and verdicts."""
