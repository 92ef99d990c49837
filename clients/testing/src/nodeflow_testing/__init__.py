"""The whole suite in one process, on virtual time and a network that a test rules: the real cores and drivers.

Owns the stand-ins of what is outside the services (time, network, disks, runner processes). The one place that imports
every service; nothing that is deployed imports it.
"""
