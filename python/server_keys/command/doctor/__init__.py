"""What `server-keys check` looks at, and what it makes of that."""
