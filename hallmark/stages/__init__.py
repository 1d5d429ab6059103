"""The stages of a model's life cycle as plain functions on directories; every pipeline step calls one of them.

A script that calls these in order does what the pipelines do, without ZenML's store and DVC's cache.
"""
