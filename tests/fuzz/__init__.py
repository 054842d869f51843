"""Fuzzers: where bytes of somebody else come in, what may come, and the laws that hold whatever comes.
`python -m tests.fuzz SURFACE --minutes 10` runs one, guided by coverage (docs/internals/fuzzing.md)."""
