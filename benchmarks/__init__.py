"""Side-by-side measurements: each prints our figure beside its peer's, from one run."""
