"""Programs that `benchmarks.versus` compares, each in a process of its own."""
