"""The ports, over gRPC."""
