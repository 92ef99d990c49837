"""The agent's core: which attempts are held, which runner gets which, what is reported. No I/O, clock or messages."""
