"""The network and its training: not here yet."""
