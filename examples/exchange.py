import json
import time
from urllib.request import Request, urlopen

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

url, me = "http://127.0.0.1:8000", X25519PrivateKey.generate()
mine = me.public_key().public_bytes_raw()

key = json.load(urlopen(f"{url}/key"))
time.sleep(key["replaced_in_s"])  # the server has a new key now, and still accepts this one
body = json.dumps({"server_public_key": key["public_key"], "public_key": mine.hex()}).encode()
proof = json.load(urlopen(Request(f"{url}/exchange", body, {"Content-Type": "application/json"})))["proof"]
server = bytes.fromhex(key["public_key"])
secret = me.exchange(X25519PublicKey.from_public_bytes(server))
assert bytes.fromhex(proof) == HKDF(SHA256(), 32, None, b"server-keys demo" + server + mine).derive(secret)
print("Both sides hold the same secret, by a key that is replaced already.")
