"""Serving many tuned models of one base at once: strategies, requests, and what they cost."""
