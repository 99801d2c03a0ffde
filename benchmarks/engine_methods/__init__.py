"""What `benchmarks/engine.py` times, one way of measuring edges per file."""
