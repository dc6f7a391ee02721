"""Backends: device IR + Config -> source text.  One folder each; none imports another."""
