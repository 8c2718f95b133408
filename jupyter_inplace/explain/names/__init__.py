"""What people call things: tensors, leaves, roots, places in the source."""
