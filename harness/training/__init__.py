"""Shared by objectives: the trainer, losses on tokens, TRL, sharding, rollouts and pairs."""
