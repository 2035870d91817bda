"""Where models and data come from, and the cache that keeps them."""
