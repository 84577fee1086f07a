"""What a run does, every value checked."""
