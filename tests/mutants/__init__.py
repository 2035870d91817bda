"""One wrong line at a time: what the tests must notice (``make mutants``)."""
