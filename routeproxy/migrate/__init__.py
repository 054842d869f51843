"""Other proxies' configurations as rules files: text in, text out. The only file that is read here is a
`.env`."""
