"""The cellar: what outlives the process."""
