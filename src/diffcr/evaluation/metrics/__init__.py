"""Image-quality metrics on published networks, whose weights the caller has on this machine."""
