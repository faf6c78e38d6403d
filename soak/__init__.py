"""A soak test: the app as visitors of a public page use it, for minutes, with everything that can go wrong on the way."""
