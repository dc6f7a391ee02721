"""Kernels that well-known libraries publish in Triton or CUDA, as someone who moves them here writes them.

One file a field: `serving`, `quantization`, `linear_attention`, `training`, `experts`.  Each ends with its rows of the
table: a kernel, its arguments from a generator, and the same in plain PyTorch.  They are written from the algorithms,
in the words that users have, not in those that suit us: what they need is what the language has to take.
"""
