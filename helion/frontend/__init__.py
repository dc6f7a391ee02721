"""Python source -> device IR: parse, resolve names, run abstractly on fake tensors, record."""
