"""The policy in force: watched, replaced as a whole, kept for a rollback."""
