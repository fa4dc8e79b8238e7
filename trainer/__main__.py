"""`python -m trainer` is `ddpo`."""

from trainer.cli import main

main()
