"""ZenML steps, one per file: each calls the library once and returns a reference to its output."""
