"""What holds of all requests, and what a file's own tests say."""
