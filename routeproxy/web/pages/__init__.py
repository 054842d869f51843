"""The page at `/-/`, for people who run the server: what is in force, and what became of it. It changes
nothing."""
