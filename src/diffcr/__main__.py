"""`python -m diffcr`."""

from diffcr.cli import main

main()
