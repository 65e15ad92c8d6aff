"""Learning from labels: heads on embeddings, fine-tuned models."""
