"""The commands, one in each file. Torch is imported only by those that need it."""
