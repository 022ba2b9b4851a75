"""The public Python interface; `tripletkit` itself names what is public of it."""
