"""Other frameworks that take part in a watch, and the hook that notices when a framework is imported."""
