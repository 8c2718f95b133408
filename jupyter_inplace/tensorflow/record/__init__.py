"""What happened to variables: the recorder, which runs inside of the program's operations."""
