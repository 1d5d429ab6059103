"""Training code that every family shares: trainer, candidates, search, processes, export."""
