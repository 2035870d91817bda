"""Processes: forked ones, those that train together, and none that outlives the one that started it. No torch."""
