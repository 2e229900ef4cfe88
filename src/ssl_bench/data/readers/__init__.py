"""One file per official on-disk format."""
