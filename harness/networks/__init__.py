"""The material of methods: tuned networks, their structure, merging, soft prompts, pooling."""
