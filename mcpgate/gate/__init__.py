"""The hall: who may call, how often, in which session. Deferreds yes, sockets no."""
