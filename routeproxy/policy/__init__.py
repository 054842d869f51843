"""A rules file becomes a policy, a policy decides: pure functions, but for `live.py`. No await, no clock, no network."""
