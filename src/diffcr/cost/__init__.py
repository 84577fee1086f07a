"""Floating-point operations of models and methods."""
