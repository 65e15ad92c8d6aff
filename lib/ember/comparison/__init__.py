"""Tables of embeddings compared on the cluster: search, join, groups, projection, export."""
