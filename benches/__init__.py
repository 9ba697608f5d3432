"""Benchmarks of server_keys beside its peers: `python -m benches`, which `make bench` calls."""
