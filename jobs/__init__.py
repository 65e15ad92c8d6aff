"""The jobs. Each is a script for spark-submit or Python, and a command of `ember`."""
