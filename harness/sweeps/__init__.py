"""Sweeps: the matrix as data, its expansion into trials, and the plan."""
