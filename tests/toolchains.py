"""Toolchains of other languages: programs are built with them and run, with nothing fetched."""

import os
import shutil
import subprocess

import pytest


def need(*tools):
    for tool in tools:
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool} on this machine")


def run(command, cwd, **environment):
    """What ``command`` prints in the folder ``cwd``; it has to succeed."""
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, env={**os.environ, **environment}
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


def cargo(folder, *arguments):
    return run(["cargo", *arguments, "--offline", "--quiet"], folder, RUSTFLAGS="-D warnings")


def go_module(folder, package):
    """go.mod of a program that uses ``package`` from where it was written."""
    (folder / "go.mod").write_text(
        f"module program\n\ngo 1.18\n\nrequire aotc/{package} v0.0.0\n\n"
        f"replace aotc/{package} => ../go/{package}\n"
    )


def go_settings(folder):
    """An environment in which nothing is fetched, and what is built stays in ``folder``."""
    return {
        "GOCACHE": str(folder / "cache"), "GOPATH": str(folder), "GOFLAGS": "-mod=mod",
        "GOPROXY": "off", "CGO_ENABLED": "1", "GOTOOLCHAIN": "local",
    }
