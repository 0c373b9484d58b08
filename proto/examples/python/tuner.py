#!/usr/bin/env python3
"""The worked example on a node: keeps the kernel's swappiness as the node's profile says, and reports what it finds.

Runs in the node's image beside the agent, which dials /run/kraken/modules.d/tuner.sock. `tuner.toml` tells the head of its mutations.
"""

import platform

from kraken_module import Module

SWAPPINESS = "/proc/sys/vm/swappiness"
PROFILES = {"LATENCY": 10, "THROUGHPUT": 60}

tuner = Module("tuner", discovers=["/tuner/kernel", "/tuner/swappiness"], version="1.0")


def tune(profile):
    with open(SWAPPINESS, "w") as file:
        file.write(str(PROFILES[profile]))


@tuner.mutation("TO_LATENCY", "/tuner/profile", frm=[None, "THROUGHPUT"], to="LATENCY", context="SELF", timeout=20)
def to_latency(node):
    tune("LATENCY")


@tuner.mutation("TO_THROUGHPUT", "/tuner/profile", frm=[None, "LATENCY"], to="THROUGHPUT", context="SELF", timeout=20)
def to_throughput(node):
    tune("THROUGHPUT")


@tuner.every(1)
def look():
    with open(SWAPPINESS) as file:
        swappiness = int(file.read())
    profile = next((name for name, value in PROFILES.items() if value == swappiness), None)
    return {"/tuner/profile": profile, "/tuner/swappiness": swappiness, "/tuner/kernel": platform.release()}


if __name__ == "__main__":
    tuner.run("/run/kraken/modules.d/tuner.sock")
