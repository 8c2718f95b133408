"""What people call tensors, leaves and roots, and where they are in the source."""
