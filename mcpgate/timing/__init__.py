"""Deadlines, tickers, ordered services: everything that waits. Clocks are always passed in."""
