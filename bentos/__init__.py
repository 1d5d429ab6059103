"""The BentoML service around a bundle, and its build. Imports hallmark only."""
