"""The recorder, which runs inside the program's operations."""
