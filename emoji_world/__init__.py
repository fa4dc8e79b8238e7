"""A small world of emoji pictures in which text-to-image RL can be run for real on a CPU."""
