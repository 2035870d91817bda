"""What objectives share: the trainer, losses on tokens, TRL, sharding, rollouts and pairs."""
