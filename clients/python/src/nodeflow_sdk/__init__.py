"""The Python SDK and the nodeflow command; knows the services by their API only."""
