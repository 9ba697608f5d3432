"""Keys for vLLM's OpenAI-compatible server: `python -m server_keys.vllm MODEL`, and a plugin for plain `vllm serve`.

Importing this package imports no vLLM.
"""
