"""Labels on the cluster: classification, trained heads, fine-tuned models."""
