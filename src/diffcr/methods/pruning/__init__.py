"""Structured pruning: narrower blocks."""
