"""What learned rewards share: weights, devices, batches, and the models behind the scores."""
