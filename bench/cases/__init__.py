"""The cases, in the order they run: one module for each thing that is measured."""
