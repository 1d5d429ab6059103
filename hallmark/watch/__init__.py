"""Decisions about a model that serves: pure functions on what was recorded."""
