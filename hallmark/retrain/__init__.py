"""Retrain: fit adapters again on what services have recorded, prove the challenger on held-out days, let it serve."""
