"""Promises re-derived from an object file alone: bytes in, what holds and what does not out."""
