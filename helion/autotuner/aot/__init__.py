"""Configs that ship with a kernel.

`options.py` is what `helion.aot_kernel` is told, `cache.py` chooses for a call from the file beside the kernel,
`decision_tree.py` is what it chooses by, `build.py` makes that file; the command line (`python -m helion`) is
in `../__main__.py`.  Nothing is imported here: making a kernel loads the options alone.
"""
