"""Directories of JSON and safetensors."""
