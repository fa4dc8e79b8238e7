"""A small world of emoji pictures in which the whole training loop runs for real, offline."""
