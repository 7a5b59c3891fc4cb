"""The meters: counters, logs and the access log. Nothing here decides anything."""
