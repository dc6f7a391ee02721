"""Kernels run by PyTorch's own ops: ref mode on the user's function, the tile executor on the device IR."""
