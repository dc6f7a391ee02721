"""Bundles: kernels compiled ahead, in one file, that run without a compiler.

`load.py` serves calls from such a file, `build.py` makes one, `command.py` is `python -m helion bundle`. What is in it:
`container.py` the bytes, `manifest.py` the description of kernels and plans, `signature.py` which calls a plan is for,
`fingerprint.py` which source. Nothing is imported here: who loads a bundle loads no compiler.
"""
