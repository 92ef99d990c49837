"""The worker: an agent that holds attempts, and the runner processes that execute them."""
