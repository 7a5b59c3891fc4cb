"""Legacy clients on modern servers: sessions that the gate makes up for them."""
