"""What the ports are made of: the SQLite store and the directory of artifacts. Must not know gRPC."""
