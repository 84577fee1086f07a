"""Tokens that reuse what they got at an earlier denoising step."""
