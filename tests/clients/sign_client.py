#!/usr/bin/env python3
"""An app that signs its calls over HTTP, as deployed ones do. Written from the description of Sign alone, with none of this project's code,
so that what it and the service agree on is what was described.

    python tests/clients/sign_client.py http://127.0.0.1:8080

Walks through the life of tokens of the demo data of `make run`, and ends with a non-zero status at the first answer that is not as it
should be.
"""

import hashlib
import hmac
import sys
from datetime import datetime, timezone
from urllib.parse import quote, urlencode

import requests

APP, SECRET = "demo-app", "demo-secret"
USER, PASSWORD = "demo", "demo-password"
REDIRECT_URI = "http://127.0.0.1:9999/callback"
JSON = "application/json;charset=utf-8"
SECONDS = 10

TOKEN = "/open-api/auth/v2/oauth2/token"
TOKEN_V1 = "/auth/v1/oauth2/token"
V281 = "/open-api/supos/auth/v2"


def expect(holds, otherwise):
    if not holds:
        sys.exit(f"unexpected: {otherwise}")


def signature(secret, method, path, content_type, query, headers, second_form):
    """`query` holds names and decoded values, `headers` those whose names begin with X-MC-."""
    lines = [
        method.upper(),
        path,
        content_type,
        "&".join(f"{name}={value}" for name, value in sorted((name.lower(), value) for name, value in query.items())),
        ";".join(f"{name}:{value}" for name, value in sorted((name.lower(), value) for name, value in headers.items())),
    ]
    if not second_form:
        lines.append("")  # of the body, which is not covered
    return hmac.new(secret.encode(), "\n".join(lines).encode(), hashlib.sha256).hexdigest()


class Client:
    """The app, and a browser in which its user is signed in."""

    def __init__(self, base):
        self.base = base
        self.app = requests.Session()
        self.browser = requests.Session()
        for session in (self.app, self.browser):
            session.trust_env = False  # neither proxies nor .netrc

    def call(self, method, path, query=None, *, body=None, encode=urlencode, **how):
        """Signs and sends a call."""
        query, headers = query or {}, how.get("headers", {})
        ours = signature(how.get("secret", SECRET), method, path, JSON, query, headers, how.get("second_form", False))
        sent = {**headers, "Content-Type": JSON, "Authorization": f"{how.get('scheme', 'Sign')} {APP}-{ours}"}
        if "token" in how:
            sent["token"] = how["token"]
        url = self.base + path + ("?" + encode(query) if query else "")
        return self.app.request(method, url, json=body, headers=sent, timeout=SECONDS, allow_redirects=False)

    def sign_in(self):
        """Opens a session in the browser (operation 11)."""
        answer = self.browser.post(f"{self.base}/inter-api/auth/login", json={"userName": USER, "password": PASSWORD}, timeout=SECONDS)
        expect(answer.status_code == 200 and "suposTicket" in self.browser.cookies, f"signing in: {answer.status_code} {answer.text}")

    def code(self):
        """Lets the app in (10)."""
        query = {"responseType": "code", "appid": APP, "redirectUri": REDIRECT_URI, "state": "张 三+"}
        answer = self.browser.get(f"{self.base}/inter-api/auth/v1/oauth2/authorize", params=query, timeout=SECONDS, allow_redirects=False)
        expect(answer.status_code == 302, f"authorize: {answer.status_code} {answer.text}")
        return answer.json()["code"]


def ok(answer, *fields):
    """The JSON of an answer that has to be 200 and to hold these fields, none of them empty."""
    expect(answer.status_code == 200, f"{answer.request.method} {answer.request.path_url}: {answer.status_code} {answer.text}")
    body = answer.json()
    expect(all(body.get(field) for field in fields), f"{answer.request.path_url}: {sorted(body)} instead of {fields}")
    if "accessToken" in fields:
        expect(answer.headers["cache-control"] == "no-store", "an answer with tokens may be stored")
    return body


def refused(answer, status, code):
    got = (answer.status_code, answer.json().get("code"))
    expect(got == (status, code), f"{answer.request.method} {answer.request.path_url}: {got} instead of {(status, code)}: {answer.text}")


def redeem(code):
    return {"grantType": "authorization_code", "code": code, "logoutUri": "http://127.0.0.1:9999/logout"}


def refresh(token):
    return {"grantType": "refresh_token", "refreshToken": token}


def is_valid(client, asked, **how):
    return ok(client.call("GET", f"{V281}/{asked}/valid", **how)).get("valid")


def walk(client):
    print("a code for tokens (1)")
    client.sign_in()
    code = client.code()
    refused(client.call("POST", TOKEN, body=redeem(code), secret="another-secret"), 401, 100106401)
    refused(client.app.post(client.base + TOKEN, json=redeem(code), timeout=SECONDS), 401, 100106401)
    answer = client.call("POST", TOKEN, body=redeem(code))
    tokens = ok(answer, "accessToken", "expiresIn", "refreshToken", "username", "personCode", "companyCode")
    expect((tokens["username"], tokens["accountType"]) == (USER, 0), "the tokens are somebody else's")
    expect(tokens["expiresIn"].isdecimal() and 0 < int(tokens["expiresIn"]) <= 3600, "expiresIn is no number of seconds, as a text")

    print("whose token it is (7), and whether it is good (8)")
    access = tokens["accessToken"]
    whose = ok(client.call("GET", f"{V281}/username", {"accessToken": access}), "username", "message")
    expect(whose["username"] == whose["message"] == USER, f"the token is that of {whose}")
    expect(is_valid(client, access) is True, "the token is not good")
    expect(is_valid(client, "no-token") is False, "what is no token is good")

    print("with headers of the app's own, with the token beside, by the second form, with the scheme in small letters")
    # A client whose clock is wrong, in a form of its own: it is signed, and looked at by nobody.
    dated = {"X-MC-Type": "openAPI", "x-mc-date": "20010101T000000Z", "X-Mc-Note": "a:b=c&d"}
    now = {"X-MC-Date": datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")}
    ways = [{"headers": dated}, {"headers": now}, {"token": access}, {"second_form": True}, {"scheme": "sign"}]
    for how in [*ways, {"second_form": True, "headers": dated, "token": access}]:
        expect(is_valid(client, access, **how) is True, f"the token is not good, asked with {sorted(how)}")
        whose = ok(client.call("GET", f"{V281}/username", {"accessToken": access}, **how), "username")
        expect(whose["username"] == USER, f"the token is that of {whose}")
    refused(client.call("GET", f"{V281}/username", {"accessToken": access}, token="no-token"), 401, 100106401)

    print("new tokens (1), and again (6)")
    fresh = ok(client.call("POST", TOKEN, body=refresh(tokens["refreshToken"])), "accessToken", "refreshToken", "username")
    expect(fresh["refreshToken"] != tokens["refreshToken"], "the refresh token was not rotated")
    answer = client.call("GET", f"{V281}/code/refreshToken", {"refreshToken": fresh["refreshToken"]})
    last = ok(answer, "accessToken", "expiresIn", "refreshToken")

    print("a code by V2.8.1 (5), whose query has Chinese, blanks, + and &")
    awkward = {
        "logoutUri": "http://127.0.0.1:9999/logout?who=张三&sum=1+2 = 3",
        "备注": "一 + 二 = 三; 100%",
        "Zone": "UTC+8",
        "empty": "",
    }
    # Blanks as + and as %20 are the same query, and every letter may be encoded.
    encodings = [urlencode, lambda query: urlencode(query, quote_via=quote), lambda query: urlencode(query, safe="/:?=")]
    for encode in encodings:
        query = {"grantType": "authorization_code", "appid": APP, "code": client.code(), **awkward}
        answer = client.call("GET", f"{V281}/code/accessToken", query, encode=encode)
        ok(answer, "accessToken", "expiresIn", "refreshToken")
        expect("deprecation" in answer.headers and "link" in answer.headers, "nothing says that the operation is deprecated")
    changed = {"grantType": "authorization_code", "appid": APP, "code": client.code(), **awkward}
    tampered = client.call("GET", f"{V281}/code/accessToken", changed, encode=lambda query: urlencode({**query, "Zone": "UTC 8"}))
    refused(tampered, 401, 100106401)

    print("a code by V1 (3)")
    tokens_v1 = ok(client.call("POST", TOKEN_V1, body=redeem(client.code())), "accessToken", "expiresIn", "refreshToken", "username")
    expect("personCode" not in tokens_v1, "V1 knows no personCode")

    print("the end of the session, by its token (9)")
    done = ok(client.call("GET", f"{V281}/logout", {"accessToken": last["accessToken"]}), "code", "message")
    expect((done["code"], done["message"]) == ("100000000", "OK"), f"the answer is {done}")
    expect(is_valid(client, last["accessToken"]) is False, "the token is still good")
    refused(client.call("GET", f"{V281}/username", {"accessToken": last["accessToken"]}), 400, 800003)
    refused(client.call("GET", f"{V281}/code/refreshToken", {"refreshToken": last["refreshToken"]}), 400, 800003)
    refused(client.call("POST", TOKEN, body=refresh(tokens_v1["refreshToken"])), 401, 100106403)

    print("the end of the browser's session (12)")
    client.sign_in()
    tokens = ok(client.call("POST", TOKEN, body=redeem(client.code())), "accessToken", "refreshToken")
    done = ok(client.browser.post(f"{client.base}/inter-api/auth/logout", timeout=SECONDS), "code", "message")
    expect((done["code"], done["message"]) == ("100000000", "OK"), f"the answer is {done}")
    expect("suposTicket" not in client.browser.cookies, "the cookie is still there")
    expect(is_valid(client, tokens["accessToken"]) is False, "the token is still good")
    refused(client.call("POST", TOKEN, body=refresh(tokens["refreshToken"])), 401, 100106403)


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: sign_client.py URL")
    walk(Client(sys.argv[1].rstrip("/")))
    print("done")


if __name__ == "__main__":
    main()
