"""The executor side: Arrow record batches in, Arrow record batches out.

It knows models, bytes, tokens, vectors and devices, and nothing of Spark: no module in here imports
pyspark, so that all of it runs and is tested where there is no Java. Frameworks (torch, TensorFlow,
transformers, OpenVINO) are imported nowhere else.
"""
