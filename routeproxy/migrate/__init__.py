"""Other proxies' configurations, turned into rules files: text in, text out, no I/O."""
