"""TuneBench: which fine-tuning method for my model, my task and my hardware?"""

__version__ = "0.2.0"
