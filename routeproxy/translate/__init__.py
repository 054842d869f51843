"""Messages ↔ chat completions: pure functions and one state machine. No await, no clock, no randomness."""
