"""How worker processes and the one that owns everything talk of requests."""
