"""Heads on embeddings: how they score and how they are fitted. No module here imports pyspark."""
