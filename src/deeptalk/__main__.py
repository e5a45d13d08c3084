"""``python -m deeptalk`` is ``deeptalk``."""

from deeptalk.cli import main

main()
