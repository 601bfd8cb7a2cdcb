"""The image without a container engine: its file linted, the steps of its first stage run in an empty folder."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import aiohttp
import pytest

from bench.free_ports import free_port
from gateway import __version__
from tests.deploy.load import configuration
from tests.deploy.processes import ROOT, outcome, run, running, tool

DOCKERFILE = ROOT / "Dockerfile"
HTTP_OK = 200


def instructions() -> list[list[tuple[str, str]]]:
    """The (instruction, arguments) of each stage; lines that are continued are joined."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = [line.strip() for line in re.sub(r"\\\n\s*", "", text).splitlines() if line.strip()]
    stages: list[list[tuple[str, str]]] = []
    for instruction, _, arguments in (line.partition(" ") for line in lines):
        if instruction == "FROM":
            stages.append([])
        if stages:
            stages[-1].append((instruction, arguments.strip()))
    return stages


def value_of(stage: list[tuple[str, str]], instruction: str) -> str:
    (found,) = [arguments for name, arguments in stage if name == instruction]
    return found


async def test_the_file_has_nothing_to_be_linted() -> None:
    await run(tool("hadolint"), str(DOCKERFILE))


def test_what_is_copied_is_let_through_to_the_build() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in ignored
    let_through = {line[1:] for line in ignored if line.startswith("!")}
    for source, _ in copies(instructions()[0]):
        assert Path(source).parts[0] in let_through
        assert (ROOT / source).exists()


def test_it_runs_as_nobody_in_particular_and_is_ended_by_a_signal() -> None:
    stage = instructions()[1]
    user, _, group = value_of(stage, "USER").partition(":")
    assert user.isdigit()
    assert group.isdigit()
    assert user != "0"
    assert json.loads(value_of(stage, "ENTRYPOINT")) == ["/usr/bin/tini", "--", "gateway"]
    assert value_of(stage, "STOPSIGNAL") == "SIGTERM"


def engines(folder: Path, *names: str) -> dict[str, str]:
    """A PATH that has what `make image` needs and engines that print how they are called."""
    for needed in ("sh", "sed", "git"):
        (folder / needed).symlink_to(shutil.which(needed) or pytest.fail(f"there is no {needed}"))
    for name in names:
        (folder / name).write_text('#!/bin/sh\necho "${0##*/} $*"\n')
        (folder / name).chmod(0o755)
    return {"PATH": str(folder), "MAKEFLAGS": ""}


@pytest.mark.parametrize(
    ("installed", "called"),
    [
        (("docker", "podman"), "docker build -t"),
        (("podman", "buildah"), "podman build --format docker -t"),
        (("buildah",), "buildah build --format docker -t"),
    ],
)
async def test_make_image_takes_the_engine_that_is_there(
    installed: tuple[str, ...], called: str, tmp_path: Path
) -> None:
    make = shutil.which("make") or pytest.fail("there is no make")
    env = engines(tmp_path, *installed)
    printed = await run(make, "-s", "image", "IMAGE=registry.example.com/gw", env=env, cwd=ROOT)
    name = f"registry.example.com/gw:{__version__} -t registry.example.com/gw:latest"
    assert printed.startswith(f"{called} {name} --build-arg VERSION={__version__} --build-arg REVISION=")
    assert printed.endswith(" .\n")


async def test_make_image_says_what_to_install_where_there_is_no_engine(tmp_path: Path) -> None:
    make = shutil.which("make") or pytest.fail("there is no make")
    code, printed = await outcome(make, "-s", "image", env=engines(tmp_path), cwd=ROOT)
    assert code != 0
    assert printed.startswith("Docker, podman or buildah builds the image, and none of them is installed.")


@pytest.mark.slow
async def test_its_steps_make_a_gateway_that_serves(tmp_path: Path) -> None:
    """Needs a package registry. The base image and its user stay untried: there is no engine to run them."""
    tool("sh")
    await built(tmp_path)
    made = tmp_path / "opt" / "gateway"
    assert not list(made.glob("lib/python3*/site-packages/pip*"))
    assert not list(made.glob("lib/python3*/site-packages/setuptools*"))
    config = configuration("http://127.0.0.1:9/v1", "http://127.0.0.1:9/v1")
    port = free_port()
    file = tmp_path / "gateway.yaml"
    file.write_text(json.dumps({**config, "admin": {"listen": f"127.0.0.1:{port}"}}), encoding="utf-8")
    env = {"GATEWAY_CONFIG": str(file), "PATH": f"{made / 'bin'}:/usr/bin:/bin"}
    await run(str(made / "bin" / "gateway"), "init", str(tmp_path / "begun"), env=env)
    stage = instructions()[1]
    health = json.loads(value_of(stage, "HEALTHCHECK").partition("CMD ")[2])
    check = [part.replace("9090", str(port)) for part in health]
    assert (await outcome(*check, env=env))[0] != 0
    async with running("gateway", *json.loads(value_of(stage, "CMD")), env=env, cwd=Path("/")) as program:
        await program.line(lambda line: '"event":"serving"' in line)
        await run(*check, env=env)
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/metrics") as answer:
            assert answer.status == HTTP_OK


async def built(folder: Path) -> None:
    """Run the first stage with /src and /opt put below the folder."""
    bare = folder / "bin"
    bare.mkdir()
    (bare / "python").symlink_to(Path(sys.base_exec_prefix) / "bin" / "python3")
    env = {"PATH": f"{bare}:/usr/bin:/bin"}
    here = folder / "src"
    here.mkdir()
    for instruction, arguments in instructions()[0]:
        if instruction == "ENV":
            env |= dict(pair.split("=", 1) for pair in arguments.split())
        if instruction == "COPY":
            for source, target in copies([(instruction, arguments)]):
                _copy(ROOT / source, here / target)
        if instruction == "RUN":
            await run("sh", "-ec", arguments.replace("/opt/", f"{folder}/opt/"), env=env, cwd=here)


def copies(stage: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """(source, target) of each file or folder that is copied from the project."""
    found: list[tuple[str, str]] = []
    for instruction, arguments in stage:
        if instruction == "COPY":
            *sources, target = arguments.split()
            found += [(source, _target(source, target)) for source in sources]
    return found


def _target(source: str, target: str) -> str:
    return f"{target}{Path(source).name}" if target.endswith("/") else target


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)
