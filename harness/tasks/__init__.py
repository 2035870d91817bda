"""Tasks: a registry (data), loading, splits, metrics and evaluation."""
