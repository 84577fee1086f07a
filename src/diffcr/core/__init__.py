"""Pure tensor functions: no modules, no diffusers."""
