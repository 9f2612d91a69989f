#!/usr/bin/env python3
"""A rig that drives echod over REST, with nothing but the standard library of Python 3.8 or later.

    rig.py bin/echod                start a daemon for itself, on a free port
    rig.py http://127.0.0.1:7070    use one that runs

It creates a TCP and a UDP endpoint, waits until they serve, probes both, says what was measured, and leaves nothing behind,
however it ends. Exit code: 0 when every expectation was met, 1 when one was not, 2 when the rig itself failed.

The class Echod is made to be copied.
"""

import ctypes
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request


class EchodError(Exception):
    """A call that echod has refused, as its google.rpc.Status says, or that did not reach it.

    status is the HTTP status and None where there was no answer; reason is for programs ("ADDRESS_IN_USE"); fields are the
    fields of the request that are wrong, each with what is wrong with it.
    """

    def __init__(self, message, status=None, reason="", fields=None):
        super().__init__(message)
        self.status, self.reason, self.fields = status, reason, fields or {}

    @classmethod
    def of(cls, status, body):
        """Reads the body of an answer that is no success."""
        try:
            answer = json.loads(body)
            message, details = answer["message"], answer.get("details", [])
        except (ValueError, KeyError, TypeError):  # a proxy's page, or another server
            return cls("HTTP status %d: %.200r" % (status, body), status)
        reason, fields = "", {}
        for detail in details:
            kind = detail.get("@type", "").rpartition("/")[2]
            if kind == "google.rpc.ErrorInfo":
                reason = detail.get("reason", "")
            elif kind == "google.rpc.BadRequest":
                fields = {v["field"]: v["description"] for v in detail.get("fieldViolations", [])}
        return cls(message, status, reason, fields)


class Echod:
    """A daemon, for the length of a with statement: one that runs (url) or one that is started for it (binary).

    What is created through it is deleted at the end, also after an exception. What even that cannot clean up, because the rig
    was killed, goes by itself: endpoints when their ttl is over, and on Linux a daemon that was started at once.
    """

    def __init__(self, url=None, binary=None, flags=(), ttl="10m", patience=30.0):
        """ttl is how long an endpoint lives when nobody deletes or renews it: longer than the rig runs. patience bounds each
        wait, in seconds."""
        if (url is None) == (binary is None):
            raise ValueError("give either the url of a daemon that runs, or the binary of one to start")
        self.url, self.ttl, self.patience = url, ttl, patience
        self._binary, self._flags = binary, list(flags)
        self._process = self._dir = self._log = None
        self._names = []
        # The daemon is here or in the lab: what the environment says of proxies is for elsewhere.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def __enter__(self):
        try:
            if self._binary is not None:
                self._start()
            self.call("GET", "/readyz", parse=False)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, kind, error, trace):
        problems = []
        for name in reversed(self._names):
            try:
                self.delete(name)
            except EchodError as problem:
                problems.append("cannot delete %s: %s" % (name, problem))
        problems += self._stop()
        if problems and kind is None:
            raise EchodError("; ".join(problems))
        for problem in problems:  # what went wrong before is the news
            print("echod:", problem, file=sys.stderr)

    def call(self, method, path, body=None, timeout=None, parse=True):
        """Sends one request and answers what it was answered with. timeout is in seconds."""
        request = urllib.request.Request(self.url + path, method=method)
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        try:
            with self._opener.open(request, timeout=timeout or self.patience) as response:
                text = response.read()
        except urllib.error.HTTPError as error:
            with error:
                raise EchodError.of(error.code, error.read()) from None
        except OSError as error:  # URLError and timeouts are
            raise EchodError("cannot reach echod at %s: %s" % (self.url, getattr(error, "reason", error))) from error
        return json.loads(text) if parse else text

    def create(self, protocol, **fields):
        """Creates an endpoint ("TCP" or "UDP") and answers it; its address is where peers go to. Fields are those of the
        contract: create("TCP", listen=":0", labels={"rack": "r1"}, tcp={"oneShot": True})."""
        endpoint = {"protocol": protocol, "name": "rig-" + secrets.token_hex(4), "ttl": self.ttl, **fields}
        # Before it is asked for: it may be there, and the answer lost.
        self._names.append(endpoint["name"])
        try:
            return self.call("POST", "/v1/endpoints", endpoint)
        except EchodError as error:
            if error.status is not None:  # refused, so there is none of ours to delete
                self._names.remove(endpoint["name"])
            raise

    def get(self, name):
        return self.call("GET", "/v1/endpoints/" + urllib.parse.quote(name, safe=""))

    def delete(self, name):
        """Deletes an endpoint. That it is gone already is no error."""
        try:
            self.call("DELETE", "/v1/endpoints/" + urllib.parse.quote(name, safe=""))
        except EchodError as error:
            if error.status != 404:
                raise
        if name in self._names:
            self._names.remove(name)

    def wait_serving(self, name):
        """Waits until an endpoint answers, and answers it. One that cannot is an error at once."""
        deadline = time.monotonic() + self.patience
        while True:
            endpoint = self.get(name)
            if endpoint["state"] == "SERVING":
                return endpoint
            if endpoint["state"] == "FAILED" or time.monotonic() > deadline:
                raise EchodError("%s is %s: %s" % (name, endpoint["state"], endpoint["stateReason"] or "no reason given"))
            time.sleep(0.05)

    def probe(self, target, count=5, interval=0.2, timeout=1.0, **plan):
        """Runs a probe and answers its report. target is the name of an endpoint, or "tcp://HOST:PORT", "udp://HOST:PORT";
        times are in seconds. Another field of a probe is one here: expect=["loss == 0%"]."""
        protocol, found, address = target.partition("://")
        target = {"address": address, "protocol": protocol.upper()} if found else {"endpoint": target}
        plan.update(target=target, count=count, interval="%fs" % interval, timeout="%fs" % timeout)
        # It answers when the last round is over.
        return self.call("POST", "/v1/probes:run", plan, timeout=self.patience + count * max(interval, timeout))

    def _start(self):
        self._dir = tempfile.mkdtemp(prefix="rig-")
        ready = os.path.join(self._dir, "ready")
        self._log = open(os.path.join(self._dir, "log"), "w+")
        command = [self._binary, "--grpc-listen=", "--http-listen=127.0.0.1:0", "--socket=", "--ready-file=" + ready]
        try:
            self._process = subprocess.Popen(command + self._flags, stdout=self._log, stderr=self._log, preexec_fn=_end_with_parent)
        except OSError as error:
            raise EchodError("cannot run %s: %s" % (self._binary, error)) from error
        deadline = time.monotonic() + self.patience
        while not os.path.exists(ready):
            if self._process.poll() is not None:
                raise EchodError("echod ended before it was ready, with exit code %d:\n%s" % (self._process.returncode, self.log()))
            if time.monotonic() > deadline:
                raise EchodError("echod is not ready after %g s:\n%s" % (self.patience, self.log()))
            time.sleep(0.01)
        with open(ready) as file:  # written whole or not at all
            self.url = "http://" + json.load(file)["http"]

    def _stop(self):
        """Ends the daemon, if it is ours, and answers what went wrong."""
        problems = []
        if self._process is not None:
            ended = self._process.poll()
            if ended is not None:
                problems.append("the daemon ended by itself, with exit code %d:\n%s" % (ended, self.log()))
            else:
                self._process.terminate()
                try:
                    code = self._process.wait(self.patience)
                    if code != 0:
                        problems.append("the daemon ended with exit code %d:\n%s" % (code, self.log()))
                except subprocess.TimeoutExpired:
                    self._process.kill()
                    self._process.wait()
                    problems.append("the daemon did not end within %g s, and was killed:\n%s" % (self.patience, self.log()))
            self._process = None
        if self._log is not None:
            self._log.close()
            self._log = None
        if self._dir is not None:
            shutil.rmtree(self._dir)
            self._dir = None
        return problems

    def log(self):
        """What the daemon wrote, if it is ours."""
        if self._log is None:
            return ""
        with open(self._log.name) as file:
            return file.read().rstrip()


def _end_with_parent():
    """Has Linux kill this process when the one that started it dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def main(where):
    # So that what is left to do is done when CI ends the job, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    all_met = True
    with Echod(url=where) if "://" in where else Echod(binary=where) as echod:
        for protocol in "TCP", "UDP":
            endpoint = echod.create(protocol, labels={"rig": "example"})
            endpoint = echod.wait_serving(endpoint["name"])
            report = echod.probe(endpoint["name"], count=3, interval=0.01, timeout=30, expect=["loss == 0%"])
            rtt = report["rtt"]["p50"] if "rtt" in report else "unknown"  # what is not known is absent
            print("%s %s: %d sent, %d received, rtt p50 %s" % (protocol, endpoint["address"], report["sent"], report["received"], rtt))
            for verdict in report["verdicts"]:
                print("  %s: %s" % (verdict["expect"], "met" if verdict["met"] else "NOT MET " + verdict["message"]))
                all_met = all_met and verdict["met"]
        try:
            echod.create("TCP", listen="127.0.0.1:70000")
        except EchodError as error:
            print("a port that is none: %d %s %s" % (error.status, error.reason, ", ".join(error.fields)))
    return 0 if all_met else 1


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        sys.exit(main(sys.argv[1]))
    except EchodError as problem:
        print("rig.py:", problem, file=sys.stderr)
        sys.exit(2)
