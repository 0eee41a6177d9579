"""A bundle applied to new documents."""
