"""The Messages API as clients speak it: requests, replies, events, errors, models. Shapes, no decisions."""
