"""The worker-manager's core: which sessions live, and who hears of what. No network, messages, loop or clock."""
