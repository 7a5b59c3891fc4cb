"""What ``mcpgate doctor`` looks at; blocks, and changes nothing."""
