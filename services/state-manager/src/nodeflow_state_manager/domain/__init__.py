"""The rules of the log: sans-IO. Owns what is accepted, refused and found; time, keys and rows come in as arguments."""
