"""Past requests through other rules: who would move where, what would break, and what it would have cost."""
