"""The scheduler: owns the state machine of every execution in its shards."""
