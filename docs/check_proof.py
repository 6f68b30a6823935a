"""Check a proof of `aquifer audit prove` or `aquifer audit extend` without Aquifer.

    python check_proof.py PROOF.json KEYS.json

PROOF.json: what the auditor was given. KEYS.json: a list of the cell's public keys (Ed25519, hex)
from a trusted source. Exit 0: the proof holds. It takes the package `cryptography` alone. RFC 9162,
2.1.3.2 and 2.1.4.2: a leaf is SHA-256(0x00 || record), a node SHA-256(0x01 || left || right).
"""

import hashlib
import json
import sys
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def node(left, right):
    return hashlib.sha256(b"\x01" + left + right).digest()


def canonical(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def signed(claim, keys):
    """The checkpoint was signed by one of the keys."""
    message = b"aquifer-checkpoint\n" + canonical(claim["checkpoint"])
    for raw in map(bytes.fromhex, keys):
        if hashlib.sha256(raw).hexdigest()[:16] == claim["key"]:
            try:
                Ed25519PublicKey.from_public_bytes(raw).verify(bytes.fromhex(claim["sig"]), message)
                return True
            except InvalidSignature:
                return False
    return False


def included(proof):
    """The record is leaf `index` under the checkpoint's root."""
    claim = proof["signed"]["checkpoint"]
    at, last = proof["index"], claim["size"] - 1
    if not 0 <= at <= last:
        return False
    hash_ = hashlib.sha256(b"\x00" + proof["record"].encode()).digest()
    for sibling in map(bytes.fromhex, proof["hashes"]):
        if last == 0:
            return False
        if at & 1 or at == last:
            hash_ = node(sibling, hash_)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            hash_ = node(hash_, sibling)
        at, last = at >> 1, last >> 1
    return last == 0 and hash_.hex() == claim["root"]


def extended(proof):
    """The new checkpoint's tree begins with the old one's."""
    old, new = proof["old"]["checkpoint"], proof["new"]["checkpoint"]
    path = [bytes.fromhex(h) for h in proof["hashes"]]
    if not 0 < old["size"] <= new["size"] or old["cell"] != new["cell"]:
        return False
    if old["size"] == new["size"]:
        return not path and old["root"] == new["root"]
    if old["size"] & (old["size"] - 1) == 0:
        path.insert(0, bytes.fromhex(old["root"]))
    if not path:
        return False
    at, last = old["size"] - 1, new["size"] - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    first = second = path[0]
    for hash_ in path[1:]:
        if last == 0:
            return False
        if at & 1 or at == last:
            first, second = node(hash_, first), node(hash_, second)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            second = node(second, hash_)
        at, last = at >> 1, last >> 1
    return last == 0 and first.hex() == old["root"] and second.hex() == new["root"]


def main():
    proof, keys = (json.loads(Path(name).read_bytes()) for name in sys.argv[1:3])
    kind, claims = (included, ("signed",)) if "record" in proof else (extended, ("old", "new"))
    if not all(signed(proof[name], keys) for name in claims):
        sys.exit("not signed by a key that was given")
    if not kind(proof):
        sys.exit("the hashes do not lead to the root")
    print("the proof holds")


if __name__ == "__main__":
    main()
