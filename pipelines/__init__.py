"""The flows, on Ray. Each file tells one, from top to bottom, rejects included."""
