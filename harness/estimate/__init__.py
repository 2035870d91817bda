"""Memory and FLOPs of a training step, without weights and without running it: does it fit?"""
