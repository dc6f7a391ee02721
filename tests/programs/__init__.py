"""Random whole programs: kernels that nobody wrote, each with a reference in plain PyTorch that means the same.

    python -m tests.programs --seconds 600 --seed 1

A program is a tree with types (`program`, `statements`, `table`): of every value its dtype, dimensions, range and a
bound on the error of a right implementation are known (`values`).  What may stand in it are rows of two tables, of
expressions (`pointwise`, `shaped`, `views`, `memory`) and of statements (`stores`, `loops`, `patterns`).
`generate` and
`building` draw programs, `printing` prints the kernel and the reference, `run` runs them in every mode, `worker` does
so in processes that may crash, `calls` draws further calls of a kernel, `shrink` makes a failure small, `coverage`
counts what programs were made of.

The reference shares nothing with the compiler: it computes on whole tensors (`whole`), integers in their own dtype and
floats in float64.  Where tiles begin does not matter to it, except in programs whose meaning depends on their size.
"""
