"""Other proxies' configurations as rules files: text in, text out. Only a `.env` is read here."""
