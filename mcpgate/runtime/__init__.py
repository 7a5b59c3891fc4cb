"""The engine room: making a server exist for its owner, and stopping it."""
