"""The embedded demo: a server whose keys come and go while you watch. Run it with `python -m examples.demo`."""
