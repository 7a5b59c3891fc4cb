"""The public test kit: fakes that pass the contracts, and the contracts."""
