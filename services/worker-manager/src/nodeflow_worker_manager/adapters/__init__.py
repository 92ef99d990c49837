"""What meets the ports: the state-manager over gRPC."""
