"""What is counted for Prometheus, over all workers of a server. The names are an interface."""
