"""Back ends that are asked in chat completions, in whatever format that travels."""
