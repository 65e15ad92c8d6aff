"""Copies on the executor side: fingerprints of rows, and links within buckets of them."""
