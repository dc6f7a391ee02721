"""Kernels a user would start from: one file each, with a PyTorch reference; `examples.catalog` lists them."""
