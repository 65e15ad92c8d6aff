"""Embedding tables compared on the cluster: search, join, groups, projection, export."""
