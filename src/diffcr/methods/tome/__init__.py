"""Token merging (arXiv 2303.17604)."""
