"""Configuration files; shipped in the wheel as ssl_bench.conf."""
