"""What all tests share."""

import signal

from hypothesis import settings

pytest_plugins = ["jobs_fixtures", "store_server"]

# A shell without job control starts what runs in the background deaf to Ctrl-C, and so its children: those that the
# tests interrupt would not notice.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Hypothesis's default deadline of 200 ms is an absolute time: on a busy machine it fails what is right.
settings.register_profile("carnac", deadline=None)
settings.load_profile("carnac")
