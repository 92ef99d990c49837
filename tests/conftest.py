"""What holds for all tests."""

import os
import signal

from hypothesis import settings

# The same examples every time, so that a failure is about the change at hand. To look for new ones:
# HYPOTHESIS_PROFILE=explore make test
# No deadline for one example: how long it takes is the machine's affair.
settings.register_profile("steady", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "steady"))

# Who starts tests in the background may have them ignore Ctrl-C, which the programs that they interrupt would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)
