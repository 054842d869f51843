"""A rules file becomes a policy, and a policy decides. Pure functions, but for `live/`."""
