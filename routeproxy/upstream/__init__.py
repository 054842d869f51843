"""The outside world: one file for each way of speaking to a back end, and the chain that tries a decision's
targets in order."""
