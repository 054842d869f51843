"""Chat completions as most back ends speak them: requests, completions, chunks. Shapes only, no decisions."""
