"""Maps: a sample of a table of embeddings in two dimensions, with what to color it by."""
