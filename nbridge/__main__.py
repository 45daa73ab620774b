"""``python -m nbridge``."""

from nbridge.cli.main import main

main()
