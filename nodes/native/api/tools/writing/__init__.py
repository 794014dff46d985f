"""How calls of tools are forced: for each family, the grammar of calls in its own format."""
