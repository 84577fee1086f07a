"""Putting a method on a transformer, and the context of a call."""
