"""One folder per task; tasks never import each other."""
