"""How a write enters the record."""
