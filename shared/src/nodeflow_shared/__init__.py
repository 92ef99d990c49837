"""Mechanism shared by every service process: server, channel, errors, settings, logs, streams, retry, clock.

Owns how a process starts, serves, reports errors and stops. Must not know what any service is about.
"""
