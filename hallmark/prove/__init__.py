"""Provenance: bundles with manifests, digests of imported source files, model versions, environment."""
