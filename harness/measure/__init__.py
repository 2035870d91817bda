"""Measuring: context managers and functions that return frozen dataclasses, with units in every name."""
