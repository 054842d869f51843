"""The proof of invariants, the run of a file's own tests, and the differences between two policies."""
