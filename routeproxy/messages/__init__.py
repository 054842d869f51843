"""The Messages API as its clients speak it: requests, replies, events, errors, models. Shapes only, no
decisions."""
