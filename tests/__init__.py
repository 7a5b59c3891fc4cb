"""Tests, in the rooms of the package; those with real sockets and processes are `functional`."""

from hypothesis import HealthCheck, settings

# A slow machine is no fault: what takes how long is measured in bench/.
settings.register_profile("mcpgate", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("mcpgate")
