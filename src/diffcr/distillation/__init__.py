"""Training of reuse: a LoRA that makes steps whose updates serve several steps worth it."""
