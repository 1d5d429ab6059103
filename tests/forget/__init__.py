"""Tests of hallmark.forget."""
