"""`python -m server_keys.command`: the same as `server-keys`."""

from server_keys.command import main

# Workers import the main module anew.
if __name__ == "__main__":
    main()
