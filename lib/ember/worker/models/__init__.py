"""Models: what their folders say, runtimes in torch, TensorFlow and OpenVINO."""
