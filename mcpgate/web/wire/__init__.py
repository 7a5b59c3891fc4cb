"""HTTP towards clients as the gate understands it: connections made into `IInbound`."""
