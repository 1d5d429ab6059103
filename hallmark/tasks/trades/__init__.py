"""Classify whether the buyer or the seller started a trade."""
