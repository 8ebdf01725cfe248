"""Tokens and keys of `martlet token` against joserfc, both ways; the commands of docs/tokens.md; a JWKS address with TLS."""

import datetime
import http.server
import ipaddress
import json
import os
import re
import ssl
import subprocess
import tempfile
import threading
import time
import unittest
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OctKey, OKPKey, RSAKey

ROOT = Path(__file__).resolve().parents[2]
MARTLET = Path(os.environ.get("TEST_PROGRAM", ROOT / ".build/debug/martlet")).resolve()
ROOMS = {"team-7/*": ["join", "publish"], "announce": ["join"]}


def generate(algorithm):
    parameters = {"alg": algorithm, "use": "sig", "kid": f"of-{algorithm}"}
    return {
        "HS256": lambda: OctKey.generate_key(256, parameters),
        "RS256": lambda: RSAKey.generate_key(2048, parameters),
        "ES256": lambda: ECKey.generate_key("P-256", parameters),
        "EdDSA": lambda: OKPKey.generate_key("Ed25519", parameters),
    }[algorithm]()


def certificate(name):
    """A key and a certificate of its own for 127.0.0.1, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return private + made.public_bytes(serialization.Encoding.PEM), made.public_bytes(serialization.Encoding.PEM)


class TokenTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def martlet(self, *arguments, text="", **settings):
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.folder), **settings}
        return subprocess.run([MARTLET, "token", *arguments], input=text, env=environment, cwd=self.folder,
                              capture_output=True, text=True, timeout=30)

    def said(self, *arguments, **more):
        done = self.martlet(*arguments, **more)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout.strip()

    def test_joserfc_takes_what_martlet_makes(self):
        for algorithm in ["HS256", "RS256", "ES256", "EdDSA"]:
            public = self.said("keygen", "--alg", algorithm, "--out", f"{algorithm}.jwk")
            private = json.loads((self.folder / f"{algorithm}.jwk").read_text())
            self.assertEqual((self.folder / f"{algorithm}.jwk").stat().st_mode & 0o777, 0o600)
            token = self.said(
                "mint", "grüße 🐦", "--key", f"{algorithm}.jwk", "--issuer", "https://id.example", "--audience", "chat",
                "--id", "first", "--expires-in", "15m", "--rooms", json.dumps(ROOMS))
            keys = KeySet.import_key_set({"keys": [private]} if algorithm == "HS256" else json.loads(public))
            decoded = jwt.decode(token, keys, algorithms=[algorithm])
            self.assertEqual(decoded.header, {"alg": algorithm, "typ": "JWT", "kid": private["kid"]})
            claims = decoded.claims
            self.assertEqual(claims["exp"] - claims["iat"], 900)
            wanted = {"sub": "grüße 🐦", "iss": "https://id.example", "aud": "chat", "jti": "first", "rooms": ROOMS}
            self.assertEqual({name: claims[name] for name in wanted}, wanted)
            # The private half is one, and joserfc signs with it what martlet takes.
            kind = {"HS256": OctKey, "RS256": RSAKey, "ES256": ECKey, "EdDSA": OKPKey}[algorithm]
            self.check_signed_by(kind.import_key(private), algorithm, f"{algorithm}.jwk")
            if algorithm != "HS256":
                self.said("keygen", "--alg", algorithm, "--pem", "--out", f"{algorithm}.pem")
                pem = kind.import_key((self.folder / f"{algorithm}.pem").read_text())
                self.check_signed_by(pem, algorithm, f"{algorithm}.pem", kid=None)

    def test_martlet_takes_what_joserfc_makes(self):
        for algorithm in ["HS256", "RS256", "ES256", "EdDSA"]:
            key = generate(algorithm)
            file = self.folder / "keys.json"
            file.write_text(json.dumps(KeySet([key]).as_dict(private=algorithm == "HS256")))
            self.check_signed_by(key, algorithm, "keys.json", kid=key.kid)
            self.check_signed_by(key, algorithm, "keys.json", kid=None)
            if algorithm != "HS256":
                for private in [False, True]:
                    (self.folder / "key.pem").write_bytes(key.as_pem(private=private))
                    self.check_signed_by(key, algorithm, "key.pem", kid="whatever the issuer calls it")

    def check_signed_by(self, key, algorithm, file, kid="none"):
        header = {"alg": algorithm, "typ": "JWT", **({"kid": kid} if kid not in (None, "none") else {})}
        now = int(time.time())
        claims = {"sub": "alice", "iat": now, "exp": now + 60, "rooms": ROOMS, "aud": ["shop", "chat"]}
        token = jwt.encode(header, claims, key, algorithms=[algorithm])
        settings = {"MARTLET_TOKEN_KEYS": file, "MARTLET_TOKEN_AUDIENCE": "chat"}
        self.said("verify", text=token + "\n", **settings)
        middle = len(token) - 20
        bad = token[:middle] + ("A" if token[middle] != "A" else "B") + token[middle + 1:]
        for changed, reason in [(bad, "signature"), (token[:-4], "the token"), (token + ".", "not a JSON Web Token")]:
            done = self.martlet("verify", text=changed, **settings)
            self.assertEqual(done.returncode, 1, changed)
            self.assertIn(reason, done.stderr)
        done = self.martlet("verify", text=token, MARTLET_TOKEN_KEYS=file)
        self.assertEqual(done.returncode, 1)
        self.assertIn("audience", done.stderr)
        late = jwt.encode(header, {"sub": "alice", "exp": now - 60}, key, algorithms=[algorithm])
        self.assertIn("expired", self.martlet("verify", text=late, MARTLET_TOKEN_KEYS=file).stderr)

    def test_the_commands_of_the_document(self):
        blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / "docs/tokens.md").read_text(), re.M | re.S)
        self.assertEqual(len(blocks), 3)
        for block in blocks:
            with tempfile.TemporaryDirectory() as folder:
                done = subprocess.run(
                    ["bash", "-euo", "pipefail", "-c", block], cwd=folder, capture_output=True, text=True, timeout=60,
                    env={"PATH": f"{MARTLET.parent}:{os.environ['PATH']}", "HOME": folder})
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertIn("Good: a node takes it.", done.stdout)

    def test_nothing_is_written_over_and_what_is_wrong_is_said(self):
        self.said("keygen", "--out", "key")
        before = (self.folder / "key").read_text()
        for arguments, code, word in [
            (["keygen", "--out", "key"], 1, "not written over"), (["keygen", "--alg", "none", "--out", "x"], 2, "alg"),
            (["keygen", "--alg", "HS256", "--pem", "--out", "x"], 2, "HS256"), (["mint", "a", "--key", "none"], 2, "none"),
            (["mint", "a", "--key", "key", "--allow", "a*b=join"], 2, "rooms"), (["verify", "x"], 2, "MARTLET_TOKEN_KEYS"),
            (["mint", "a", "--key", "key", "--allow", "a=jion"], 2, "rooms"), (["inspect", "x"], 1, "JSON Web Token"),
            (["mint", "a", "--key", "key", "--expires-in", "1y"], 2, "--expires-in"),
        ]:
            done = self.martlet(*arguments)
            self.assertEqual(done.returncode, code, (arguments, done.stderr))
            self.assertIn(word, done.stderr)
        self.assertEqual((self.folder / "key").read_text(), before)
        done = self.martlet("inspect", text=self.said("mint", "\u202ea", "--key", "key"))
        self.assertIn("Not checked", done.stdout)
        self.assertNotIn("\u202e", done.stdout)

    def test_a_jwks_address_must_be_vouched_for_and_does_not_send_elsewhere(self):
        key = generate("ES256")
        chain, authority = certificate("the issuer")
        _, other = certificate("somebody else")
        (self.folder / "chain.pem").write_bytes(chain)
        (self.folder / "ca.pem").write_bytes(authority)
        (self.folder / "other.pem").write_bytes(other)
        published = json.dumps(KeySet([key]).as_dict(private=False)).encode()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                found = self.path == "/keys"
                self.send_response(200 if found else 302)
                if not found:
                    self.send_header("Location", "/keys")
                self.end_headers()
                self.wfile.write(published if found else b"")

            def log_message(self, *arguments):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / "chain.pem")
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        token = jwt.encode({"alg": "ES256", "kid": key.kid}, {"sub": "a", "exp": int(time.time()) + 60}, key)
        url = f"https://127.0.0.1:{server.server_address[1]}"
        good = {"MARTLET_TOKEN_JWKS_URL": f"{url}/keys", "MARTLET_TOKEN_JWKS_CA": "ca.pem"}
        self.said("verify", text=token, **good)
        for change, word in [
            ({"MARTLET_TOKEN_JWKS_CA": "other.pem"}, "JWKS"), ({"MARTLET_TOKEN_JWKS_CA": ""}, "JWKS"),
            ({"MARTLET_TOKEN_JWKS_URL": f"{url}/moved"}, "302"),
        ]:
            done = self.martlet("verify", text=token, **{**good, **change})
            self.assertEqual(done.returncode, 1, done.stderr)
            self.assertIn(word, done.stderr)


if __name__ == "__main__":
    unittest.main()
