"""``python -m emoji_world``."""

from emoji_world.cli import main

if __name__ == "__main__":
    main()
