"""Back ends that speak Messages: a byte pipe."""
