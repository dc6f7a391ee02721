"""Launching binaries of our own through the CUDA driver, in Python: no compiler's launcher is between."""
