"""Whether a short text speaks well or ill of its subject."""
