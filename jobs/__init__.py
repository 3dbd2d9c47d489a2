"""One thin entry point per command: it parses, launches and says what came of it."""
