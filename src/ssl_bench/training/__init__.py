"""One run: build → pretrain → evaluate → record."""
