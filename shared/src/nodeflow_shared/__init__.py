"""Mechanism that every service runs on; never a word of the domain."""
