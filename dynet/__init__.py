"""The network, what the released weights are called in it, and what it costs."""
