"""Captioned pictures, encoded once."""
