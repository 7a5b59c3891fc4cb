"""Clients of the modern era (2026-07-28), and how modern servers are asked."""
