"""Ways of putting several trained concepts on one base. `registry.METHODS` lists them."""
