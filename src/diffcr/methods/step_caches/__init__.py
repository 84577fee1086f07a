"""Step caches of diffusers: a denoising step reuses what an earlier one computed."""
