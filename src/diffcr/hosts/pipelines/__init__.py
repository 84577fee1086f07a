"""How each family's pipeline calls its transformer: a file a family, and what they share."""
