"""Fine-tuning: the loop, its learners in torch and TensorFlow, rows staged for them."""
