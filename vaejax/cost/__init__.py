"""What a training step costs, of compiled programs: FLOPs, memory, traffic, batch sizes."""
