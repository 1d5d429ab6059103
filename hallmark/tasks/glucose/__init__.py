"""Glucose forecasting: sources, cleaning, metrics, request and response, safety."""
