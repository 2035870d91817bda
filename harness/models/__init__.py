"""Base checkpoints: a registry (data) and loading. Nothing here imports torch until :mod:`harness.models.load`."""
