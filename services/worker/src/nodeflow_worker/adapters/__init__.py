"""The world as the driver's ports want it: processes, gRPC, files."""
