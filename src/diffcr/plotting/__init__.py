"""Figures, from records only."""
