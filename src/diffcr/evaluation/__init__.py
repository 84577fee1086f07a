"""Measuring a pipeline: images, quality, latency, operations; everything ends in one record."""
