#!/usr/bin/env python3
"""The worked example: fans of nodes are switched on and off, and the temperature of this machine's room is reported.

A real module would talk to hardware where this one writes a file in its `folder`.
"""

import os

from kraken_module import Failed, Module

fan = Module("fan", discovers=["/fan/temperature"], version="1.0")


def switch(node, state):
    folder = fan.config.get("folder", "/tmp")
    if not os.path.isdir(folder):
        raise Failed(f"{folder} is no folder: set folder in the module's configuration")
    with open(os.path.join(folder, node.name), "w") as file:
        file.write(f"{state} {node.cfg.get('/fan/speed', 1)}\n")
    fan.log(f"the fan of {node.name} is {state}", node=node.id)


@fan.mutation("START", "/fan/state", frm=[None, "OFF"], to="ON", timeout=10, fail_to={"/fan/state": None})
def start(node):
    switch(node, "ON")


@fan.mutation("STOP", "/fan/state", frm=[None, "ON"], to="OFF", excludes={"/Busy": "BUSY"}, timeout=10, fail_to={"/fan/state": None})
def stop(node):
    switch(node, "OFF")


@fan.every(1)
def look():
    return {"/fan/temperature": int(fan.config.get("temperature", 21))}


if __name__ == "__main__":
    fan.run()
