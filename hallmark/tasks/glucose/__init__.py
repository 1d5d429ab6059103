"""Glucose forecasting for people: sources, cleaning, metrics, request and response, safety."""
