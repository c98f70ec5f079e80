"""Cost of a training step from its compiled program: FLOPs, memory, traffic, largest batch."""
