"""The audit trail: a record before the first connection of each request and one after its end, in chains that
nobody can change unseen, and the rules by which each was decided."""
