"""What several tests need: tiny models, toy tasks, made-up records, a Slurm of this machine."""
