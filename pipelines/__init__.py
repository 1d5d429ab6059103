"""Pipelines: wiring only. `python -m pipelines NAME` runs one from params.yaml."""
