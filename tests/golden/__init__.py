"""Texts that the tests compare with, each made by a command that its test names."""
