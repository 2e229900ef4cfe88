"""What a sweep will cost on this machine, measured before it starts."""
