"""Erasure: remove everything about a subject, search for what is left, and certify what was found."""
