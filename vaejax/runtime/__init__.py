"""Devices, compilation, processes, signals and streams of the running program."""
