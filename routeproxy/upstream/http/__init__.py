"""Our own HTTP client: connections, answers, addresses, headers."""
