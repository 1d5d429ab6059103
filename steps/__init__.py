"""ZenML steps, one a file: each calls the library once and returns a reference to what it made."""
