"""Pictures and masks, before and after the model."""
