"""Vectors of item images: files, an encoder trained here, and pretrained encoders."""
