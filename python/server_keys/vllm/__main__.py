"""`python -m server_keys.vllm`."""

import runpy

# Not a plain import: spawned processes import the main module anew, unless it is called `__main__` itself.
runpy.run_module("server_keys.vllm.entrypoint", run_name="__main__", alter_sys=True)
