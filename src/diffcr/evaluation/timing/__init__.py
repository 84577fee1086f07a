"""Seconds and memory of calls."""
