"""HTTP/1.1 as values: heads, strict checks, parsers and writers. Sans-IO; knows no Twisted."""
