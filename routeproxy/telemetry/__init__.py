"""What an operator sees of the server: logs, metrics, traces, the ledger. Never a prompt, never a key."""
