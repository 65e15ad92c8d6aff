"""Encoded images: what their headers claim, decoding, thumbnails."""
