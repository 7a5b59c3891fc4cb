"""Programs that are started beside what is measured: servers behind it, clients before it."""
