"""The server of the console: uvicorn on an address that this machine alone reaches, unless tokens guard it."""

from __future__ import annotations

from collections.abc import Callable, Collection

from engine.errors import ConfigError
from engine.loopback import is_loopback
from engine.serving.access_watcher import AccessWatcher
from engine.serving.audit import AuditLog
from engine.serving.http.server import listen, web_server
from streaming.config import Config
from streaming.console.app import Console
from streaming.console.gate import Gate
from streaming.serve import now_ms

#: Seconds between looks at the file of those who may ask, and for requests under way at the end.
_LOOK_S, _GRACE_S = 1.0, 5
#: Connections at a time: people look at it, and its pages.
_MOST = 64


class ConsoleServer:
    """Listens from its making on, and answers while :meth:`run` runs.

    Parameters
    ----------
    config
        The configuration.
    host, port
        Where; port 0: any that is free.
    names
        More names under which it is reached, such as that of a proxy before it.

    Attributes
    ----------
    port : int
        Where it listens.

    Raises
    ------
    ConfigError
        The address cannot be had, or others than this machine would reach it and nothing asks who they are.
    """

    def __init__(self, config: Config, host: str, port: int, names: Collection[str] = ()) -> None:
        serving = config.serving
        if serving.access_file is None and not is_loopback(host):
            raise ConfigError(
                f"--host {host}: is reached from elsewhere, and anybody could promote policies; set "
                "serving.access_file, or leave it on 127.0.0.1"
            )
        self._watcher = None if serving.access_file is None else AccessWatcher(serving.access_file, _LOOK_S)
        gate = Gate([host, *names], None if self._watcher is None else self._watcher.current, now_ms)
        console = Console(config, gate, AuditLog(serving.audit_log), now_ms)
        try:
            self._listener = listen(host, port)
        except OSError as error:
            raise ConfigError(f"--host/--port: cannot listen on {host}:{port} ({error}); choose a free port") from error
        self.port = int(self._listener.getsockname()[1])
        self._server = web_server(console.app(), _GRACE_S, most=_MOST)

    def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Answer until SIGTERM or SIGINT, or :meth:`stop`."""
        if self._watcher is not None:
            self._watcher.start()
        try:
            ready()
            self._server.run(sockets=[self._listener])
        finally:
            self._listener.close()
            if self._watcher is not None:
                self._watcher.stop()

    def stop(self) -> None:
        """End :meth:`run`, from another thread."""
        self._server.should_exit = True
