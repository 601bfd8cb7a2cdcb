"""The bill of materials says what an installation takes, and nothing else."""

from __future__ import annotations

import re

from deploy.sbom import LOCK, bill_of_materials


def test_it_has_every_package_of_the_lock_with_its_hashes() -> None:
    lock = LOCK.read_text(encoding="utf-8")
    made = bill_of_materials()
    pinned = re.findall(r"^([\w.-]+)==([\w.]+)", lock, re.MULTILINE)
    assert [(each["name"], each["version"]) for each in made["components"]] == pinned
    hashes = [each["content"] for one in made["components"] for each in one["externalReferences"][0]["hashes"]]
    assert sorted(hashes) == sorted(re.findall(r"sha256:(\w+)", lock))
    assert len({each["bom-ref"] for each in made["components"]}) == len(pinned)


def test_it_is_cyclonedx_and_names_the_gateway() -> None:
    made = bill_of_materials()
    assert (made["bomFormat"], made["specVersion"]) == ("CycloneDX", "1.6")
    assert made["metadata"]["component"]["name"] == "inducta-gateway"
    assert made["metadata"]["component"]["version"]
