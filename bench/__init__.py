"""What the gate costs, measured beside others on the same work: ``python -m bench --help``."""
