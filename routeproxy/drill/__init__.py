"""Rehearsals: back ends that misbehave behind a policy, on loopback, and what clients get."""
