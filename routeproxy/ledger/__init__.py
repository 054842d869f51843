"""The books: a row for each request and each attempt, what it took and what it cost, and sums by the hour."""
