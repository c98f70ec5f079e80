"""Local files: the paths that users name, atomic writes, and strict JSON."""
