"""The files of the project that `nodeflow init` makes. Owns their text."""
