"""What all tests share."""

from hypothesis import settings

pytest_plugins = ["jobs_fixtures", "store_server"]

# Hypothesis's default deadline of 200 ms is an absolute time: on a busy machine it fails what is right.
settings.register_profile("carnac", deadline=None)
settings.load_profile("carnac")
