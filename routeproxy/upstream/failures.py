"""What can go wrong at a back end, in our own words: the class that rules name, and the answer that a client gets (wire.md §2.8)."""
