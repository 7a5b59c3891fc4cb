"""Between clients and the speakers of both eras: lists of tools held against what is trusted."""
