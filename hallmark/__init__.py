"""Hallmark: data in, served personal models out, and proof of every answer."""

__version__ = "0.1.0"
