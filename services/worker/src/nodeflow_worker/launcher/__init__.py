"""The launcher: a small process that starts, watches and ends the processes of attempts for the agent.

Why not the agent itself: it has gRPC's threads, so it cannot fork; and it can be killed, and then somebody must be left
who ends what it started. Must import nothing but the standard library: it starts without site-packages.
"""
