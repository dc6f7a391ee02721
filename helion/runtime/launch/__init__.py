"""What a call does on a GPU: from its arguments to a launch, in Python, and what the call in C is made from."""
