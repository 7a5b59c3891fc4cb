"""A worker: a process that takes clients' connections and hands their requests to the owner."""
