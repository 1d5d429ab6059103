"""Forecasting of time series for many subjects: panels, personal history, networks, intervals, baselines."""
