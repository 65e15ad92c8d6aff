"""Heads on embeddings: how they score and how they are fitted."""
