"""Proof: bundles and their manifests, lists of code, versions, provenance."""
