"""Read and check rows: tables, validation, splits, DVC pointers."""
