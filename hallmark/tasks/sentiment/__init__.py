"""Classify whether a short text is positive or negative."""
