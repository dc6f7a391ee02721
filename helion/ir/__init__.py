"""The device IR and its analyses: what a kernel does, with no word about how a backend prints it."""
