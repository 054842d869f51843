"""The parts of `benchmarks/hops.py`: a scripted back end, what stands between it and a client, a client that
measures, and the table."""
