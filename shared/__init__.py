"""What trainer and reward services have in common: the wire, images, errors, the client."""
