"""The BentoML service around a bundle, and its build. It imports only hallmark."""
