"""Modern clients on legacy servers: sessions the gate holds for them, parked calls, listens."""
