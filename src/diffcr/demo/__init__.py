"""What the package does, shown on its embedded pipeline in a few minutes."""
