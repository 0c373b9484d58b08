"""A Kraken module in Python: declare mutations and discoveries with decorators, then run().

Speaks proto/kraken/v1/module.proto as the gRPC server on $KRAKEN_MODULE_SOCKET. Needs grpcio; and stubs made by
`python3 -m grpc_tools.protoc`, or else grpcio-tools beside a folder `proto`, from which they are made at each start.
"""

import itertools
import os
import queue
import sys
import threading
import traceback
from concurrent import futures

import grpc

try:
    import kraken.v1.module_pb2 as pb
    import kraken.v1.module_pb2_grpc as rpc
    import kraken.v1.mutation_pb2 as mutation_pb
    import kraken.v1.state_pb2 as state_pb
except ImportError:
    sys.path.append(os.environ.get("KRAKEN_PROTO", os.path.join(os.path.dirname(os.path.abspath(__file__)), "proto")))
    pb, rpc = grpc.protos_and_services("kraken/v1/module.proto")
    mutation_pb, state_pb = grpc.protos("kraken/v1/mutation.proto"), grpc.protos("kraken/v1/state.proto")

API_VERSION = 1
CONTEXTS = {"SELF": 1, "CHILD": 2, "ALL": 3}


class Failed(Exception):
    """Raised by a mutation that cannot be carried out; its text reaches whoever asks `krakenctl node explain`."""


def to_value(value):
    """A Python value as the API has it; None is unknown."""
    if value is None:
        return None
    if isinstance(value, (list, tuple)):
        return state_pb.Value(list_value=state_pb.ValueList(items=[to_value(item) for item in value]))
    kind = {bool: "bool_value", int: "int_value", float: "float_value", bytes: "bytes_value"}.get(type(value))
    return state_pb.Value(**{kind: value}) if kind else state_pb.Value(text_value=str(value))


def from_value(value):
    """The other way round."""
    kind = value.WhichOneof("kind")
    return [from_value(item) for item in value.list_value.items] if kind == "list_value" else kind and getattr(value, kind)


def values(message):
    """Values of a node as a dict by url."""
    return {change.url: from_value(change.value) for change in message.values}


class Node:
    """The node that a mutation is about."""

    def __init__(self, message):
        self.id, self.name, self.attempt = message.node_id, message.node_name, getattr(message, "attempt", 0)
        self.cfg, self.dsc = values(message.cfg), values(message.dsc)
        self.interrupted = threading.Event()


class Module(rpc.ModuleServicer):
    def __init__(self, name=None, discovers=(), reads=(), version=""):
        self.name = name or os.environ.get("KRAKEN_MODULE_NAME", "module")
        self.declared = pb.Declaration(api_version=API_VERSION, module=self.name, version=version, discoverables=discovers, reads=reads)
        self.config, self.hello, self.serving = {}, None, True
        self._mutations, self._polls, self._running, self._asked = {}, [], {}, {}
        self._out, self._pool, self._lock = queue.Queue(), futures.ThreadPoolExecutor(16), threading.Lock()
        self._numbers = itertools.count(1)

    def mutation(self, name, url, to, frm=(None,), context="CHILD", requires=None, excludes=None, timeout=60, fail_to=None, disruptive=False):
        """Declares that the function takes `url` from one of `frm` to `to`. It returns when that is so, or raises Failed."""
        optional = lambda value: mutation_pb.OptionalValue(value=to_value(value))
        either = lambda value: value if isinstance(value, (list, tuple)) else [value]
        conditions = lambda of: [mutation_pb.UrlCondition(url=at, any_of=map(optional, either(value))) for at, value in (of or {}).items()]
        change = mutation_pb.UrlChange(url=url, to=optional(to), **{"from": [optional(value) for value in either(frm)]})
        failed = [state_pb.ValueChange(url=at, value=to_value(value)) for at, value in (fail_to or {}).items()]
        declared = dict(module=self.name, name=name, context=CONTEXTS[context], mutates=[change], cost=1, disruptive=disruptive)
        rules = dict(requires=conditions(requires), excludes=conditions(excludes), timeout_ms=int(timeout * 1000), fail_to=failed)
        self.declared.mutations.append(mutation_pb.Mutation(**declared, **rules))

        def register(function):
            self._mutations[name] = (function, {url: to})
            return function

        return register

    def every(self, seconds):
        """Calls the function again and again; the dict that it returns is reported as values of the host's own node."""
        return lambda function: self._polls.append((seconds, function)) or function

    def discover(self, found, node=b""):
        """Reports values, {url: value}, of a node (bytes of its id; left out: the host's own)."""
        changes = [state_pb.ValueChange(url=url, value=to_value(value)) for url, value in found.items()]
        self._say(discovery=pb.Discovery(node_id=node, values=changes))

    def log(self, text, level="INFO", node=b""):
        self._say(log=pb.ModuleLog(level=pb.ModuleLog.Level.Value(level), text=text, node_id=node))

    def die(self, why):
        """Ends the process at once, with these last words. From any thread: sys.exit would end but the thread, unheard."""
        print(why, file=sys.stderr, flush=True)
        os._exit(1)

    def query(self, urls=(), nodes=(), timeout=10):
        """Nodes with the values that this module may see; raises Failed if the host refuses."""
        with self._lock:
            number = next(self._numbers)
            answer = self._asked[number] = futures.Future()
        try:
            self._say(query=pb.Query(id=number, urls=urls, node_ids=nodes))
            result = answer.result(timeout)
        except futures.TimeoutError:
            raise Failed(f"the host has not answered a query within {timeout} s") from None
        finally:
            with self._lock:
                del self._asked[number]
        if result.error:
            raise Failed(result.error)
        return [Node(node) for node in result.nodes]

    def configured(self):
        """Called when the configuration has come or changed; it is in self.config."""

    def run(self, path=None):
        path = path or os.environ["KRAKEN_MODULE_SOCKET"]
        if os.path.exists(path):
            os.remove(path)
        server = grpc.server(futures.ThreadPoolExecutor(4))
        rpc.add_ModuleServicer_to_server(self, server)
        # grpc.health.v1 by hand, one field each way: set self.serving to False while mutations cannot be carried out, and they wait.
        health = grpc.unary_unary_rpc_method_handler(lambda request, context: b"\x08\x01" if self.serving else b"\x08\x02")
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": health})])
        server.add_insecure_port("unix:" + path)
        server.start()
        for seconds, function in self._polls:
            threading.Thread(target=self._poll, args=(seconds, function), daemon=True).start()
        server.wait_for_termination()

    def Serve(self, requests, context):
        out = self._out = queue.Queue()
        context.add_callback(lambda: out.put(None))
        threading.Thread(target=self._listen, args=(requests,), daemon=True).start()
        yield from iter(out.get, None)

    def _say(self, **kind):
        self._out.put(pb.FromModule(**kind))

    def _listen(self, requests):
        for message in requests:
            kind = message.WhichOneof("kind")
            if kind == "hello":
                self.hello = message.hello
                if not message.hello.api_oldest <= API_VERSION <= message.hello.api_version:
                    speaks = f"{message.hello.api_oldest} to {message.hello.api_version}"
                    self.die(f"this module speaks version {API_VERSION} of the module API, the host {speaks}")
                self._configure(message.hello.config)
                self._say(declare=self.declared)
            elif kind == "config":
                self._configure(message.config)
            elif kind == "mutate":
                self._pool.submit(self._mutate, message.mutate)
            elif kind == "interrupt":
                if running := self._running.get((message.interrupt.node_id, message.interrupt.mutation)):
                    running.interrupted.set()
            elif kind == "query_result":
                with self._lock:  # nobody waits any more for one that comes late
                    if answer := self._asked.get(message.query_result.id):
                        answer.set_result(message.query_result)
            elif kind == "refused":
                print("refused:", message.refused.text, file=sys.stderr, flush=True)
            elif kind == "ping":
                self._say(pong=message.ping)

    def _configure(self, config):
        self.config = {key: from_value(value) for key, value in config.values.items()}
        try:
            self.configured()
        except Exception:  # another configuration may be better
            traceback.print_exc()

    def _mutate(self, mutate):
        node, (function, reached) = Node(mutate), self._mutations.get(mutate.mutation, (None, None))
        self._running[(mutate.node_id, mutate.mutation)] = node
        try:
            if function is None:
                raise Failed(f"this module has no mutation {mutate.mutation}")
            function(node)
            self.discover(reached, mutate.node_id)
        except Exception as error:  # whatever it is, the planner has to know
            text = str(error) if isinstance(error, Failed) else f"{type(error).__name__}: {error}"
            self._say(failed=pb.MutationFailed(node_id=mutate.node_id, mutation=mutate.mutation, attempt=mutate.attempt, text=text))
        finally:
            if self._running.get((mutate.node_id, mutate.mutation)) is node:
                del self._running[(mutate.node_id, mutate.mutation)]

    def _poll(self, seconds, function):
        pause = threading.Event()
        while not pause.wait(seconds if self.hello else 0.2):
            try:
                if self.hello and (found := function()):
                    self.discover(found)
            except Exception as error:  # the next look may go well
                traceback.print_exc()
                self.log(f"{function.__name__}: {type(error).__name__}: {error}", "ERROR")
