"""Model families: what tasks of one kind share, each readable in one place."""
