"""Tables and pages, from records only."""
