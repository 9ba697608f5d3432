"""The demo: a server whose keys come and go while you watch. `make demo` runs it."""
