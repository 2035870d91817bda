"""What methods are made of: a network with its trainable parameters, its structure, merging, soft prompts, pooling."""
