"""The public Python face; `tripletkit` itself names what is public of it."""
