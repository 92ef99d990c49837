"""The state-manager: owns the event log, snapshots, the execution index, artifacts and shard leases."""
