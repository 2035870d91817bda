"""Running trials: one notebook in one process, and the executors that start such processes."""
