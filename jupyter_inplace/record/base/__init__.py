"""What the recorder stands on: torch's private names, schemas, geometry of memory, replaced functions."""
