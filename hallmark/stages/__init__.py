"""The stages of a model's life as plain calls on directories: what every pipeline step calls once.

A script that calls these in order does what the pipelines do, without a store or a cache.
"""
