"""A clone of a backbone on today's libraries: missing modules, renamed names, patches."""
