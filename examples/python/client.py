#!/usr/bin/env python3
"""The life of a token over gRPC, against the demo data of `make run`.

    pip install grpcio grpcio-tools googleapis-common-protos
    python examples/python/client.py [ADDRESS]

ADDRESS is the service's gRPC listener, as 127.0.0.1:50051. Without it, it comes from SUPOS_AUTH_GRPC, else it is that.
The stubs are generated from proto/ each time, into a folder that is thrown away. A program of your own would generate them once.

Says what it does, and ends with a non-zero status at the first thing that is not as expected.
"""

import hashlib
import hmac
import os
import secrets
import sys
import tempfile
from datetime import datetime, timezone
from importlib import import_module
from pathlib import Path

import grpc
import grpc_tools
from grpc_tools import protoc

PROTO = Path(__file__).resolve().parents[2] / "proto"
APP, SECRET = "demo-app", "demo-secret"
USER, PASSWORD = "demo", "demo-password"
REDIRECT_URI = "http://127.0.0.1:9999/callback"
LOGOUT_URI = "http://127.0.0.1:9999/logout"
SECONDS = 10


def generate(folder):
    """Generates the stubs of the documented interface, and makes them importable."""
    files = [str(file.relative_to(PROTO)) for pattern in ("google/**/*.proto", "supos/auth/v2*/*.proto") for file in PROTO.glob(pattern)]
    well_known = Path(grpc_tools.__file__).parent / "_proto"
    status = protoc.main(["protoc", f"-I{PROTO}", f"-I{well_known}", f"--python_out={folder}", f"--grpc_python_out={folder}", *files])
    expect(status == 0, "the protos do not compile")
    sys.path.insert(0, folder)


def expect(holds, otherwise):
    if not holds:
        sys.exit(f"unexpected: {otherwise}")


def signed(method):
    """The metadata of one call of this method (`/package.Service/Method`), signed for the app. Make it anew for each call."""
    # Over gRPC both are required. A signature works once: without the nonce, two equal calls in one second would be one signature.
    headers = [("x-mc-date", datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")), ("x-mc-nonce", secrets.token_urlsafe())]
    # Method, path, content type, query (there is none), x-mc- headers by name, and an empty line.
    text = "\n".join(["POST", method, "application/grpc", "", ";".join(f"{name}:{value}" for name, value in headers), ""])
    signature = hmac.new(SECRET.encode(), text.encode(), hashlib.sha256).hexdigest()
    return [("authorization", f"Sign {APP}-{signature}"), *headers]


def reason_of(error):
    """The reason of a refusal, which a program can match on."""
    status_pb2 = import_module("google.rpc.status_pb2")
    error_details_pb2 = import_module("google.rpc.error_details_pb2")
    details = dict(error.trailing_metadata()).get("grpc-status-details-bin", b"")
    for detail in status_pb2.Status.FromString(details).details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            return info.reason
    return ""


def refused(call, reason):
    """Makes a call that has to be refused, for this reason."""
    try:
        call()
    except grpc.RpcError as error:
        expect(reason_of(error) == reason, f"refused with {error.code().name} {reason_of(error)}: {error.details()}")
        print(f"  refused, as it should be: {error.details()} ({error.code().name}, {reason})")
    else:
        sys.exit(f"unexpected: it was not refused with {reason}")


def walk(channel):
    v2 = import_module("supos.auth.v2.auth_pb2")
    v281 = import_module("supos.auth.v281.auth_pb2")
    auth = import_module("supos.auth.v2.auth_pb2_grpc").AuthServiceStub(channel)
    tokens_v281 = import_module("supos.auth.v281.auth_pb2_grpc").AuthServiceStub(channel)
    token_method = "/supos.auth.v2.AuthService/Token"
    username_method, valid_method = "/supos.auth.v281.AuthService/GetUsername", "/supos.auth.v281.AuthService/ValidateToken"

    print(f"signing in as {USER} (operation 11)")
    session = auth.SignIn(v2.SignInRequest(user_name=USER, password=PASSWORD), timeout=SECONDS)
    expect(session.username == USER, f"signed in as {session.username}")
    ticket = [("cookie", f"suposTicket={session.ticket}")]

    print(f"letting {APP} in (10)")
    request = v2.AuthorizeRequest(response_type="code", appid=APP, redirect_uri=REDIRECT_URI, state="xyz", scope="profile")
    authorized = auth.Authorize(request, metadata=ticket, timeout=SECONDS)

    print("swapping the code for tokens (1)")
    request = v2.TokenRequest(grant_type="authorization_code", code=authorized.code, logout_uri=LOGOUT_URI)
    tokens = auth.Token(request, metadata=signed(token_method), timeout=SECONDS)
    expect(tokens.username == USER and tokens.expires_in > 0, "the tokens are not the user's")
    print(f"  an access token for {tokens.username}, good for {tokens.expires_in} s")

    print("refreshing them (1)")
    request = v2.TokenRequest(grant_type="refresh_token", refresh_token=tokens.refresh_token)
    fresh = auth.Token(request, metadata=signed(token_method), timeout=SECONDS)
    expect(fresh.refresh_token != tokens.refresh_token, "the refresh token was not rotated")

    print("asking whether the access token is good (8), and whose it is (7)")
    question = v281.ValidateTokenRequest(access_token=fresh.access_token)
    expect(tokens_v281.ValidateToken(question, metadata=signed(valid_method), timeout=SECONDS).valid, "the token is not good")
    # With the token beside the signature, the caller is the app and its user.
    app_and_user = [*signed(username_method), ("token", fresh.access_token)]
    whose = tokens_v281.GetUsername(v281.GetUsernameRequest(access_token=fresh.access_token), metadata=app_and_user, timeout=SECONDS)
    expect(whose.username == USER, f"it is that of {whose.username}")

    print("signing out (12)")
    auth.SignOut(v2.SignOutRequest(), metadata=ticket, timeout=SECONDS)

    print("trying the tokens after that")
    expect(not tokens_v281.ValidateToken(question, metadata=signed(valid_method), timeout=SECONDS).valid, "the access token is still good")
    print("  the access token is good no more")
    request = v2.TokenRequest(grant_type="refresh_token", refresh_token=fresh.refresh_token)
    refused(lambda: auth.Token(request, metadata=signed(token_method), timeout=SECONDS), "REFRESH_TOKEN_REFUSED")


def main():
    address = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("SUPOS_AUTH_GRPC", "127.0.0.1:50051")
    with tempfile.TemporaryDirectory() as folder, grpc.insecure_channel(address) as channel:
        generate(folder)
        try:
            walk(channel)
        except grpc.RpcError as error:
            sys.exit(f"unexpected: {error.code().name}: {error.details()}")
    print("done")


if __name__ == "__main__":
    main()
