"""Faces drawn by a formula."""
