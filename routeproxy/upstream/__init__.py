"""The outside world: one room for each way of speaking to a back end, and what tries a decision's targets in
order."""
