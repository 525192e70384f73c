"""A model hub small enough for a test: it answers the calls that huggingface_hub's client makes.

Repositories of models, the check of a card's header, preupload, Git LFS's batch (basic transfer),
and commits. It keeps nothing that is not what it says: an object's bytes must have its hash, a
commit may name only objects that have arrived, and on the commit that it was made for.
"""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import yaml

LARGE = (".safetensors", ".png")
WRITES, READS = "hf_writer0123456789abcdef", "hf_reader0123456789abcdef"


class SmallHub:
    """A hub on a port of this machine, until `close`."""

    def __init__(self):
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                """Quiet."""

            def do_GET(self):
                """A question."""
                hub.answer(self, b"")

            def do_POST(self):
                """A question with a body, or a change."""
                hub.answer(self, self.rfile.read(int(self.headers.get("Content-Length") or 0)))

            def do_PUT(self):
                """An object, perhaps cut off."""
                hub.take(self)

        self.repos, self.objects, self.calls, self.cuts = {}, {}, [], {}
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        """Stop answering."""
        self.server.shutdown()
        self.server.server_close()

    def make(self, name, private=True, files=()):
        """A repository; `files` are name -> bytes."""
        self.repos[name] = {"private": private, "files": {}, "commits": [], "sha": "0" * 40}
        for path, content in dict(files).items():
            self.repos[name]["files"][path] = git_oid(content)
            self.objects[git_oid(content)] = content

    def sent(self, method):
        """The paths of all calls of a method."""
        return [path for how, path in self.calls if how == method]

    def content(self, name):
        """Path -> bytes of what a repository holds now."""
        return {path: self.objects[oid] for path, oid in self.repos[name]["files"].items()}

    def answer(self, call, body):
        """Reply to a question."""
        path = call.path.split("?")[0]
        self.calls.append((call.command, path))
        status, told = self.think(call, path, body)
        reply(call, status, told)

    def think(self, call, path, body):
        """(status, JSON) of a call."""
        token = (call.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token not in (WRITES, READS):
            return 401, {"error": "Invalid credentials in Authorization header"}
        if call.command == "POST" and token != WRITES and "validate" not in path:
            return 403, {"error": "You don't have the rights to write here"}
        if path == "/api/validate-yaml":
            return self.validate(json.loads(body)["content"])
        if path == "/api/repos/create":
            return self.create(json.loads(body))
        if path.endswith(".git/info/lfs/objects/batch"):
            return 200, self.batch(json.loads(body))
        if path == "/lfs/verify":
            said = json.loads(body)
            there = self.objects.get(said["oid"])
            return (200, {}) if there and len(there) == said["size"] else (404, {"error": "no"})
        parts = path.removeprefix("/api/models/").split("/")
        name = "/".join(parts[:2])
        if name not in self.repos:
            return 404, {"error": "Repository not found"}
        match parts[2:]:
            case [] | ["revision", "main"]:
                return 200, self.info(name)
            case ["preupload", "main"]:
                return 200, self.preupload(name, json.loads(body))
            case ["commit", "main"]:
                return self.commit(name, [json.loads(line) for line in body.splitlines()])
        return 400, {"error": f"this hub has no {path}"}

    def validate(self, card):
        """As far as the hub's check is public: a header in YAML that is a mapping."""
        header = yaml.safe_load(card.split("---")[1]) if card.startswith("---") else None
        if not isinstance(header, dict) or "license" not in header:
            return 400, {"errors": [{"message": "no license"}], "warnings": []}
        return 200, {"errors": [], "warnings": []}

    def create(self, asked):
        """A new repository; 409 where there is one."""
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.repos:
            return 409, {"error": "You already created this model repo"}
        self.make(name, private=asked.get("visibility") == "private")
        return 200, {"url": f"{self.url}/{name}", "name": name, "id": name}

    def info(self, name):
        """What the hub tells of a repository."""
        repo = self.repos[name]
        siblings = [{"rfilename": path} for path in [".gitattributes", *repo["files"]]]
        return {"id": name, "sha": repo["sha"], "private": repo["private"], "siblings": siblings}

    def preupload(self, name, asked):
        """How each file is to be sent, and what is there under its name."""
        files = self.repos[name]["files"]
        told = [
            {
                "path": one["path"],
                "uploadMode": "lfs" if one["path"].endswith(LARGE) else "regular",
                "shouldIgnore": False,
                "oid": files.get(one["path"]),
            }
            for one in asked["files"]
        ]
        return {"files": told}

    def batch(self, asked):
        """Where each object goes; nowhere if it has arrived before."""
        told = []
        for one in asked["objects"]:
            told.append({"oid": one["oid"], "size": one["size"]})
            if one["oid"] not in self.objects:
                verify = {"href": f"{self.url}/lfs/verify"}
                upload = {"href": f"{self.url}/lfs/{one['oid']}?X-Signature=secret-signature"}
                told[-1]["actions"] = {"upload": upload, "verify": verify}
        return {"transfer": "basic", "objects": told}

    def take(self, call):
        """Keep an object whose bytes have its hash; cut the connection halfway where told to."""
        oid, size = call.path.split("?")[0].removeprefix("/lfs/"), call.headers["Content-Length"]
        self.calls.append((call.command, oid))
        if self.cuts.get(oid, 0) > 0:
            self.cuts[oid] -= 1
            call.rfile.read(int(size) // 2)
            call.close_connection = True
            call.connection.close()
            return
        content = call.rfile.read(int(size))
        if hashlib.sha256(content).hexdigest() != oid:
            reply(call, 400, {"error": "the bytes have another hash"})
            return
        self.objects[oid] = content
        reply(call, 200, {})

    def commit(self, name, lines):
        """One commit, whole or not at all."""
        repo, header = self.repos[name], lines[0]["value"]
        if header.get("parentCommit", repo["sha"]) != repo["sha"]:
            return 412, {"error": "A commit has happened since"}
        files = dict(repo["files"])
        for line in lines[1:]:
            said = line["value"]
            match line["key"]:
                case "file":
                    content = base64.b64decode(said["content"])
                    self.objects[git_oid(content)] = content
                    files[said["path"]] = git_oid(content)
                case "lfsFile":
                    if said["oid"] not in self.objects:
                        return 400, {"error": f"{said['path']} has not arrived"}
                    files[said["path"]] = said["oid"]
                case "deletedFile":
                    del files[said["path"]]
        repo["files"] = files
        repo["commits"].append(header["summary"])
        told = f"{repo['sha']}{json.dumps(files)}{header['summary']}"
        repo["sha"] = hashlib.sha1(told.encode()).hexdigest()
        url = f"{self.url}/{name}/commit/{repo['sha']}"
        return 200, {"success": True, "commitOid": repo["sha"], "commitUrl": url}


def reply(call, status, told):
    """Send JSON."""
    body = json.dumps(told).encode()
    call.send_response(status)
    call.send_header("Content-Type", "application/json")
    call.send_header("Content-Length", str(len(body)))
    if status == 404:
        call.send_header("X-Error-Code", "RepoNotFound")
    call.end_headers()
    call.wfile.write(body)


def git_oid(content):
    """Git's name of a file's bytes."""
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
