"""The rules file as it is written: its tables, how they are read, and where each value stands."""
