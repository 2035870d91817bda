"""The ledger: the only reader and writer of a sweep's files, its claims and its scan."""
