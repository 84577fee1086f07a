"""The JSON that everything measured ends in."""
