"""DiffCR and uniform ratios on the same routers (arXiv 2412.16822, 2404.02258)."""
