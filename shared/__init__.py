"""What the trainer and the reward services have in common: the wire, its errors and its client."""
