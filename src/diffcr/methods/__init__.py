"""One file per method: how a bound block computes."""
