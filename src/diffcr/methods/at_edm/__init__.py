"""Attention-driven token pruning (arXiv 2405.05252)."""
